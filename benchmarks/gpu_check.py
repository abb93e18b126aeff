"""Check an accelerator: the same numbers as on the CPU and by graphs, the seconds of every phase, then a training.

    python benchmarks/gpu_check.py --seconds 200
    python benchmarks/gpu_check.py --seconds 60 --device cpu --sizes 8:8x4 --experiment smoke

Every line is flushed, and after each line the JSON file holds all numbers so far. The exit code is 1 where a number of
the accelerator differs from that of the CPU, one of the fused kernels from that of the plain code, or more than 1 % of
the chains of recorded moves from those of plain moves. No git, no internet and no installed package are needed;
PYTHONPATH may name the folder of the checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from graph_check import compare_graphs
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lightning_vfe.models.base.uniform import UniformBase
from lightning_vfe.models.flow.equivariant_flow import EquivariantFlow
from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.models.wavefunction.conditional import electron_density
from lightning_vfe.models.wavefunction.density import ElectronDensity
from lightning_vfe.models.wavefunction.density.fused.choice import SWITCH, failures
from lightning_vfe.models.wavefunction.fermi import fermi_function
from lightning_vfe.models.wavefunction.wavefunction import GeminalWavefunction
from lightning_vfe.optim.natural_gradient import NaturalGradientOptimizer
from lightning_vfe.physics.strata import Strata
from lightning_vfe.physics.system import System
from lightning_vfe.sampling.nested import NestedSampler
from lightning_vfe.state.variational_state import VariationalState
from lightning_vfe.training.variational.module import VariationalFreeEnergy

SIZES = ("16:16x8", "16:1024x8", "14:16x8", "14:1024x8", "54:16x8", "54:1024x8")
MOVES = 100
"""Electron moves of a sweep in the table."""
PROFILED = 3
"""The step of the training that is profiled; the one before it has recorded the graphs."""
KERNELS = 30
"""Lines of the profile."""
EVALUATIONS = 10
"""Evaluations of ln|psi|^2 in the table."""


class Report:
    """Prints lines and keeps the JSON file up to date.

    Args:
        file: the JSON file.
        seconds: time for everything.
    """

    def __init__(self, file: Path, seconds: float) -> None:
        self.file, self.started, self.seconds = file, time.monotonic(), seconds
        self.content: dict[str, Any] = {"errors": {}, "phases": [], "training": []}

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.seconds - (time.monotonic() - self.started)

    def say(self, line: str) -> None:
        """Print a line at once, with the time since the start."""
        print(f"[{time.monotonic() - self.started:6.1f}] {line}", flush=True)
        self.file.write_text(json.dumps(self.content, indent=1) + "\n")


def make_state(
    num_atoms: int,
    protons: int,
    electrons: int,
    twists: Any = ((0.25, 0.1, -0.3),),
    moves: int = MOVES,
    **settings: Any,
) -> VariationalState:
    """Networks of the paper's size with parameters as after a training, and walkers of one group."""
    torch.manual_seed(0)
    system, strata = System(num_atoms), Strata.of(rs=1.25, temperature_kelvin=6000.0, twists=twists)
    wavefunction = GeminalWavefunction(system, strata.reference, 1, 4, 32, 16, max(57, num_atoms + 10))
    flow = EquivariantFlow(system, strata.reference)
    with torch.no_grad():
        for parameter in wavefunction.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        for name, parameter in flow.named_parameters():
            if name.endswith("readout"):
                parameter.normal_(std=0.3)
            elif name.endswith("amplitude"):
                parameter.fill_(0.03)
    sampler = NestedSampler(system, num_electron_steps=moves, proton_sampling="direct")
    density = ProtonDensity(UniformBase(system), flow)
    counts = {"num_proton_walkers": protons, "num_electron_walkers": electrons, "num_groups": 1}
    return VariationalState(system, strata, wavefunction, density, sampler, **counts, **settings)


# --- the same numbers as on the CPU ---------------------------------------------------------------------------------


def check_numbers(report: Report, device: str) -> bool:
    """Compare energies, ln p, scores, inverse, Fermi function and one natural-gradient step with the CPU's."""
    found: dict[str, dict[str, Tensor]] = {}
    for place in ("cpu", device):
        state = make_state(8, 4, 4)
        state.place("cpu")
        for module in (state.wavefunction, state.proton_density):
            assert module is not None
            module.to(place)
        assert state.walkers is not None
        assert state.proton_density is not None
        state.walkers.fields = {name: value.to(place) for name, value in state.walkers.fields.items()}
        batch = state.current()
        sample, scores = state.energies(batch), state.scores(batch, 8)
        assert sample.protons is not None
        inverse = state.proton_density.flow.from_base(sample.protons.z, batch.states)
        found[place] = {
            "local energy": torch.view_as_real(sample.electronic.total),
            "ln p": sample.protons.log_prob,
            "scores of psi": scores["wavefunction"],
            "scores of p": scores["flow"],
            "inverse of the flow": inverse.x,
            "Fermi function": torch.view_as_real(_fermi(place)),
            "natural-gradient step": _step(state, batch, sample),
        }
    good = True
    for name, expected in found["cpu"].items():
        error = float((found[device][name].cpu() - expected).abs().max() / expected.abs().max().clamp(min=1.0))
        tolerance = 1e-6 if name in ("inverse of the flow", "natural-gradient step") else 1e-9
        good &= error < tolerance
        report.content["errors"][name] = error
        report.say(f"{name:<24} largest error {error:8.1e}  {'ok' if error < tolerance else 'DIFFERS'}")
    return good


def check_graphs(report: Report, device: str) -> bool:
    """Compare electron moves that are recorded as CUDA graphs with plain ones."""
    state = make_state(16, 16, 8, chain_precision="float32")
    for network in (state.wavefunction, state.proton_density):
        assert network is not None
        network.to(device)
    state.place(device)
    report.content["graphs"] = compare_graphs(state, device, report.say)
    return all(found["differing"] <= 0.01 for found in report.content["graphs"].values())


def _fermi(device: str) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    real, imag = (torch.randn(32, 1, 64, 64, generator=generator, dtype=torch.float64) for _ in range(2))
    matrix = torch.complex(real + real.mT, imag - imag.mT).to(device)
    return fermi_function(matrix, torch.tensor([3.0], dtype=torch.float64, device=device), 16)


def _step(state: VariationalState, batch: Any, sample: Any) -> Tensor:
    """The parameters of both networks after one step."""
    module = VariationalFreeEnergy(state)
    settings = module.configure_optimizers()
    settings["optimizer"].step(closure=lambda: module.score_blocks(batch, sample))
    return torch.cat([parameter.detach().flatten().cpu() for parameter in module.parameters()])


# --- the fused kernels ----------------------------------------------------------------------------------------------


@contextmanager
def plain_code() -> Iterator[None]:
    """ln|psi|^2 without the fused kernels."""
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = "0"
    try:
        yield
    finally:
        del os.environ[SWITCH]
        if before is not None:
            os.environ[SWITCH] = before


def density_of(state: VariationalState, dtype: torch.dtype) -> tuple[ElectronDensity, Tensor]:
    """ln|psi|^2 of the walkers as the moves take it, and their electrons."""
    walkers = state.place()
    protons = walkers.protons * walkers.states.rs[:, None, None]
    density = electron_density(state.wavefunction, protons, walkers.states, dtype)
    assert density is not None
    return density.for_walkers(walkers.electrons.shape[1]), walkers.electrons


def value_and_gradient(density: ElectronDensity, electrons: Tensor) -> tuple[Tensor, Tensor]:
    """ln|psi|^2 and its derivative by the electrons."""
    variable = electrons.clone().requires_grad_()
    value = density(variable)
    return value.detach(), torch.autograd.grad(value.sum(), variable)[0]


def check_kernels(report: Report, device: str) -> bool:
    """Compare ln|psi|^2 and its gradient by the fused kernels with the plain code on the same device."""
    good = True
    for num_atoms in (2, 14, 16):
        state = make_state(num_atoms, 24, 8)
        state.wavefunction.to(device)
        assert state.proton_density is not None
        state.proton_density.to(device)
        state.place(device)
        for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-2)):
            density, electrons = density_of(state, dtype)
            fused = value_and_gradient(density, electrons)
            with plain_code():
                plain = value_and_gradient(density, electrons)
            for name, a, b in zip(("value", "gradient"), fused, plain, strict=True):
                error = float((a - b).abs().max() / b.abs().max().clamp(min=1.0))
                name = f"fused {name}, N = {num_atoms}, {str(dtype).removeprefix('torch.')}"
                good &= error < tolerance
                report.content["errors"][name] = error
                report.say(f"{name:<32} largest error {error:8.1e}  {'ok' if error < tolerance else 'DIFFERS'}")
    for reason in failures:
        report.say(f"the fused kernels are NOT USED: {reason}")
    return good and not failures


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


# --- the table ------------------------------------------------------------------------------------------------------


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
        for network in (state.wavefunction, state.proton_density):
            assert network is not None
            network.to(device)
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


# --- the training ---------------------------------------------------------------------------------------------------


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


def attempt(report: Report, part: Callable[[], bool | None]) -> bool:
    """Run a part; one that fails is shown with its traceback, and the next one runs all the same."""
    try:
        return part() is not False
    except Exception:
        report.say(f"a part FAILED:\n{traceback.format_exc()}")
        return False


def main() -> int:
    """Run all three parts; see the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=200.0, help="time for everything")
    parser.add_argument("--device", default="cuda", help="cuda or cpu")
    parser.add_argument("--json", type=Path, default=Path("gpu_check.json"), help="file of all numbers")
    parser.add_argument("--sizes", nargs="*", default=SIZES, help="systems of the table, N:WxB")
    parser.add_argument("--experiment", default="h16_6000K_tabc", help="what is trained")
    parser.add_argument("--override", nargs="*", default=[], help="key=value of the experiment")
    parser.add_argument("--training-share", type=float, default=0.4, help="share of the time for the training")
    arguments = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    report = Report(arguments.json, arguments.seconds)
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu"
    report.content["device"] = f"{name}, torch {torch.__version__}, Python {sys.version.split()[0]}"
    report.say(report.content["device"])
    device, until = arguments.device, arguments.training_share * arguments.seconds
    good = attempt(report, lambda: check_numbers(report, device))
    good &= attempt(report, lambda: check_graphs(report, device))
    good &= attempt(report, lambda: device != "cuda" or check_kernels(report, device))
    good &= attempt(report, lambda: table(report, device, list(arguments.sizes), until))
    good &= attempt(report, lambda: train(report, device, arguments.experiment, arguments.override))
    report.say("done" if good else "done; NUMBERS DIFFER")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
