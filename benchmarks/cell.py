"""What a step of a large cell takes on one GPU: predicted from operations, flops and bytes counted for few walkers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from measure import Work, peak_memory
from phases import Phases, Setting

from lightning_vfe.models.twin import Twin
from lightning_vfe.models.wavefunction.scores import wavefunction_scores
from lightning_vfe.optim.cost import update_cost
from lightning_vfe.physics.chunking import KEPT_TEMPORARIES, MEMORY_SHARE, set_max_chunk_elements
from lightning_vfe.sampling.electron_moves import move_electrons
from lightning_vfe.sampling.proposals import HamiltonianProposal
from lightning_vfe.state.targets import electron_target

PROTON_WALKERS, ELECTRON_WALKERS, MOVES = 64 * 4, 4, 12
"""64 twists with four proton walkers each; four electron walkers of each; Hamiltonian moves of a step."""
GPU_BYTES = 80e9
CHUNK_SHARE = KEPT_TEMPORARIES / MEMORY_SHARE
"""Part of the memory that a phase in chunks takes."""
LAUNCH, REPLAY = 8e-6, 1.5e-6
"""Seconds of an operation that Python launches, and of one that a CUDA graph repeats."""
COUNTED = (1, 3)
"""Proton walkers that are counted; a further one costs a half of the difference."""
COUNTED_MOVES = (4, 8)


class Count(NamedTuple):
    """Of a piece of work."""

    operations: float
    flops: float
    bytes: float
    """Read and written."""
    peak: float
    """Bytes held."""


class Phase(NamedTuple):
    """One part of a step, for all walkers."""

    name: str
    operations: float
    """Launches of all chunks."""
    replayed: float
    """How many of them a CUDA graph repeats."""
    flops: float
    bytes: float
    """Read and written."""
    peak: float
    """Bytes held."""

    def seconds(self, products: float, memory: float, with_graphs: bool) -> float:
        """The largest of what products, memory and launches take; they overlap.

        Args:
            products: flops a second.
            memory: bytes a second.
            with_graphs: whether moves of the electrons are recorded.
        """
        replayed = self.replayed if with_graphs else 0.0
        launches = LAUNCH * (self.operations - replayed) + REPLAY * replayed
        return max(self.flops / products, self.bytes / memory, launches)


def phases_of_a_step(num_atoms: int) -> list[Phase]:
    """All phases of a step, with the default networks and moves."""
    set_max_chunk_elements(2**40)  # the operations of one chunk
    few, more = _counted(num_atoms)
    found = [_electrons(few, more)]
    found += [_chunked(name, *(_count(_work(phases)[name]) for phases in (few, more))) for name in _work(few)]
    parameters = sum(each.numel() for each in more.wavefunction.parameters())
    cost = update_cost(PROTON_WALKERS * ELECTRON_WALKERS, 2, parameters, 1, "auto")
    other_size = parameters if cost.space == "sample" else 2 * PROTON_WALKERS * ELECTRON_WALKERS
    flops = 2.0 * cost.size**2 * other_size + cost.size**3 / 3.0
    set_max_chunk_elements(None)
    return [*found, Phase("natural gradient", 0.0, 0.0, flops, 4.0 * cost.memory, cost.memory)]


def _counted(num_atoms: int) -> tuple[Phases, ...]:
    setting = Setting(num_atoms, num_electron_walkers=ELECTRON_WALKERS, num_layers=3)
    return tuple(Phases(replace(setting, num_proton_walkers=count), torch.device("cpu")) for count in COUNTED)


def _work(phases: Phases) -> dict[str, Callable[[], object]]:
    """Phases that work in chunks where the memory does not suffice."""
    protons, states, density = phases.protons, phases.states, phases.density
    return {
        "inverse of the flow": lambda: density.flow.from_base(protons, states, waits=False),
        "ln p(x)": torch.no_grad()(lambda: density.log_prob(protons, states)),
        "kinetic energy": phases.kinetic_energy,
        "Coulomb energies": phases.ewald_energies,
        "scores of psi": lambda: wavefunction_scores(phases.wavefunction, protons, phases.electrons, states),
        "scores of p": lambda: density.scores(protons, states),
    }


def _count(work: Callable[[], object]) -> Count:
    with peak_memory(torch.device("cpu")) as memory:
        work()
    with Work() as counted:
        work()
    return Count(counted.operations, counted.flops, counted.bytes, memory["peak"])


def _chunked(name: str, one: Count, other: Count) -> Phase:
    whole = _of_all_walkers(one, other)
    chunks = max(1, math.ceil(whole.peak / (CHUNK_SHARE * GPU_BYTES)))
    return Phase(name, chunks * other.operations, 0.0, whole.flops, whole.bytes, whole.peak / chunks)


def _electrons(few: Phases, more: Phases) -> Phase:
    """All moves, with the preparation of the density; all walkers at once."""
    short, long = (
        _of_all_walkers(*(_count(_moves(phases, count)) for phases in (few, more))) for count in COUNTED_MOVES
    )
    move = [(b - a) / (COUNTED_MOVES[1] - COUNTED_MOVES[0]) for a, b in zip(short, long, strict=True)]
    whole = Count(*(a + (MOVES - COUNTED_MOVES[0]) * each for a, each in zip(short, move, strict=True)))
    return Phase("electron moves", whole.operations, MOVES * move[0], whole.flops, whole.bytes, long.peak)


def _moves(phases: Phases, count: int) -> Callable[[], object]:
    twin = Twin(phases.wavefunction, torch.float32)
    target, walkers = electron_target(phases.wavefunction, twin), phases.walkers
    width = walkers.log_widths["electrons"].exp()
    return lambda: move_electrons(walkers, target, HamiltonianProposal(), width, count, phases.cell)


def _of_all_walkers(one: Count, other: Count) -> Count:
    """Of all proton walkers in one chunk, from two numbers of them."""
    slopes = [(b - a) / (COUNTED[1] - COUNTED[0]) for a, b in zip(one, other, strict=True)]
    return Count(*(a + (PROTON_WALKERS - COUNTED[0]) * slope for a, slope in zip(one, slopes, strict=True)))


def predict(num_atoms: int, products: float, memory: float) -> None:
    """Print a table for N, and the N whose step fills the memory.

    Args:
        num_atoms: N.
        products: flops a second.
        memory: bytes a second.
    """
    phases = phases_of_a_step(num_atoms)
    print(f"\nN = {num_atoms}, {PROTON_WALKERS} x {ELECTRON_WALKERS} walkers, {MOVES} Hamiltonian moves")
    print("| phase | operations | Tflop | TB moved | GB held | s, launched | s, with graphs |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    sums = [0.0, 0.0]
    for phase in phases:
        seconds = [phase.seconds(products, memory, with_graphs) for with_graphs in (False, True)]
        sums = [a + b for a, b in zip(sums, seconds, strict=True)]
        numbers = phase.flops / 1e12, phase.bytes / 1e12, phase.peak / 1e9, *seconds
        print(f"| {phase.name} | {phase.operations:.0f} | " + " | ".join(f"{n:.3g}" for n in numbers) + " |")
    # A graph keeps the memory of its moves, the scores stay until they are used, all else comes and goes.
    kept, other = phases[0].peak + phases[-1].peak, max(phase.peak for phase in phases[1:-1])
    print(f"| sum | | | | {(kept + other) / 1e9:.3g} | {sums[0]:.3g} | {sums[1]:.3g} |", flush=True)
    larger = _electrons(*_counted(2 * num_atoms)).peak
    power = math.log2(larger / phases[0].peak)
    available = (1.0 - CHUNK_SHARE) * GPU_BYTES
    largest = 2 * num_atoms * (available / larger) ** (1.0 / power)
    print(f"\nthe electron moves hold memory as N^{power:.2f}: {available / 1e9:.0f} GB at N = {largest:.0f}")
