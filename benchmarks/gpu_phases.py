"""Seconds and memory of every phase of a step on an accelerator."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from gpu_numbers import density_of, plain_code, value_and_gradient
from gpu_report import Report
from gpu_state import make_state, move_networks

from lightning_vfe.optim.natural_gradient import NaturalGradientOptimizer
from lightning_vfe.state.variational_state import VariationalState
from lightning_vfe.training.variational.module import VariationalFreeEnergy

EVALUATIONS = 10
"""Evaluations of ln|psi|^2 in the table."""


def evaluations_of(state: VariationalState) -> dict[str, Callable[[], object]]:
    """Evaluations of ln|psi|^2 in float32 with and without the fused kernels."""
    density, electrons = density_of(state, torch.float32)

    @torch.no_grad()
    def values() -> None:
        for _ in range(EVALUATIONS):
            density(electrons)

    def gradients() -> None:
        for _ in range(EVALUATIONS):
            value_and_gradient(density, electrons)

    def plainly(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            with plain_code():
                work()

        return run

    works = {f"{EVALUATIONS} values": values, f"{EVALUATIONS} gradients": gradients}
    return works | {f"{name}, plain": plainly(work) for name, work in works.items()}


def phases_of(state: VariationalState) -> dict[str, Callable[[], object]]:
    """The work of a step, phase by phase."""
    module = VariationalFreeEnergy(state)
    walkers = state.place()
    kept: dict[str, Any] = {}

    def energies() -> None:
        kept["batch"] = state.current()
        kept["sample"] = state.energies(kept["batch"])

    def electrons() -> None:
        state.sampler.step(walkers, None, state.electron_target(), adapt=False)

    def protons() -> None:
        state.sampler.step(walkers, state.proton_target(), None, adapt=False)

    def scores() -> None:
        kept["blocks"] = module.score_blocks(kept["batch"], kept["sample"])

    def solve() -> None:
        optimizer = module.configure_optimizers()["optimizer"]
        assert isinstance(optimizer, NaturalGradientOptimizer)
        optimizer.step(closure=lambda: kept.pop("blocks"))

    return evaluations_of(state) | {
        f"{state.sampler.num_electron_steps} electron moves": electrons,
        "protons, direct": protons,
        "energies": energies,
        "scores": scores,
        "solve": solve,
    }


def table(report: Report, device: str, sizes: list[str], deadline: float) -> None:
    """Seconds and memory of every phase, each measured after one warm-up where there is time."""
    report.say(f"{'N':>3} {'walkers':>9} {'phase':<22}{'first s':>9}{'s':>9}{'GiB':>7}")
    for size in sizes:
        atoms, _, walkers = size.partition(":")
        protons, electrons = (int(number) for number in walkers.split("x"))
        if report.left < deadline:
            report.say(f"{atoms:>3} {walkers:>9} left out: the time is for the training")
            continue
        state = make_state(int(atoms), protons, electrons, chain_precision="float32")
        move_networks(state, device)
        state.place(device).equilibrated = True
        for name, work in phases_of(state).items():
            first = _timed(work, device)
            second = None
            if name != "solve" and first is not None and first < report.left - deadline:
                second = _timed(work, device)
            memory = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0
            row = {"num_atoms": int(atoms), "walkers": walkers, "phase": name, "first": first, "seconds": second}
            report.content["phases"].append(row | {"gib": memory})
            times = [f"{'-' if value is None else format(value, '.3f'):>9}" for value in (first, second)]
            report.say(f"{atoms:>3} {walkers:>9} {name:<22}{''.join(times)}{memory:>7.1f}")
            if report.left < deadline or (first is None and not name.endswith("plain")):
                break
        del state
        if device == "cuda":
            torch.cuda.empty_cache()


def _timed(work: Callable[[], object], device: str) -> float | None:
    """Seconds of the clock; None where the memory does not suffice."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    start = time.monotonic()
    try:
        work()
    except torch.OutOfMemoryError:
        return None
    if device == "cuda":
        torch.cuda.synchronize()
    return time.monotonic() - start
