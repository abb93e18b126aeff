"""A training on an accelerator for a given time, with a profile of one step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from gpu_report import Report
from torch.profiler import ProfilerActivity, profile

PROFILED = 3
"""The step of the training that is profiled; the one before it has recorded the graphs."""
KERNELS = 30
"""Lines of the profile."""


def train(report: Report, device: str, experiment: str, overrides: list[str]) -> None:
    """Train an experiment for the time that is left."""
    from lightning_vfe.workflows.compose import compose_config
    from lightning_vfe.workflows.overrides import parse
    from lightning_vfe.workflows.tasks import VariationalTask

    config = compose_config(parse([f"experiment={experiment}", *overrides]))
    torch.manual_seed(config.seed)
    module, datamodule = VariationalTask().build(config)
    module.to(device)
    state = module.state
    state.place(device)
    settings = module.configure_optimizers()
    optimizer, schedule = settings["optimizer"], settings["lr_scheduler"]["scheduler"]
    report.say(f"training {experiment} on {device}, {state.counts}")
    state.equilibrate(datamodule.equilibration_steps, progress=lambda sweeps: _while_time(sweeps, report, 0.3))
    step, longest = 0, 0.0
    while report.left > longest + 1.0:
        began = time.monotonic()
        with profiled(report, device, wanted=step == PROFILED):
            batch = state.batch(adapt=True)
            sample = state.energies(batch)
            optimizer.step(closure=lambda batch=batch, sample=sample: module.score_blocks(batch, sample))
            schedule.step()
        step, seconds = step + 1, time.monotonic() - began
        longest = max(longest, seconds)
        terms = {
            name: (float(term.mean()), float(term.std() / len(term) ** 0.5)) for name, term in sample.terms.items()
        }
        total = sample.electronic.total
        variance = float((total - total.mean(1, keepdim=True)).abs().square().mean())
        row = {"step": step, "seconds": seconds, "local_energy_variance": variance, **terms}
        row |= {name: float(value) for name, value in batch.report.items()}
        report.content["training"].append(row)
        free, energy = terms["free_energy_per_atom"], terms["energy_per_atom"]
        values = f"F = {free[0]:.5f}({free[1]:.5f})  E = {energy[0]:.5f}  var = {variance:.3f}"
        report.say(f"step {step:4d} {seconds:6.2f} s  {values}")
    torch.save({"state_dict": module.state_dict(), "experiment": experiment}, report.file.with_suffix(".ckpt"))


@contextmanager
def profiled(report: Report, device: str, wanted: bool) -> Iterator[None]:
    """Print what takes the time on the accelerator inside it: kernels by the sum of their seconds."""
    if not wanted or device != "cuda":
        yield
        return
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        yield
        torch.cuda.synchronize()
    rows = sorted(found.key_averages(), key=lambda row: -row.device_time_total)
    total, launches = sum(row.device_time_total for row in rows), sum(row.count for row in rows)
    report.say(f"profile of one step: {total * 1e-6:.3f} s in {launches} kernels and copies")
    report.content["profile"] = [(row.key, row.count, row.device_time_total * 1e-6) for row in rows[:100]]
    for name, count, seconds in report.content["profile"][:KERNELS]:
        report.say(f"{seconds:9.4f} s {count:>8}  {name[:100]}")


def _while_time(sweeps: Any, report: Report, share: float) -> Any:
    """The sweeps, as long as they take no more than a share of the time that is left."""
    until = report.left * (1.0 - share)
    for sweep in sweeps:
        if report.left < until:
            return
        yield sweep
