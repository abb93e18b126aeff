"""Which moves of the electrons give most independent samples a second?

    python benchmarks/bench_electrons.py runs/default
    python benchmarks/bench_electrons.py runs/h16 --ways gaussian langevin hamiltonian-3 --moves 800

The protons stay where the run left them, psi has the weights of the run. All ways start from the same equilibrated
electrons, adapt their width, and then move with a frozen one. Columns: accepted fraction and its target; width in units
of rs; processor milliseconds of a move of all walkers; autocorrelation times, in milliseconds of a move of all walkers,
of ln|psi|^2, the potential energy, E_loc (of --local-walkers walkers), the mean distance of an electron to its nearest
proton, and the longest of those of the density and spin density at the shortest wave vectors; independent samples a
second by E_loc, and by the slowest of all. In brackets: one standard error, by the jackknife over proton walkers.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from measure import start_on_one_thread
from torch import Tensor

import lightning_vfe as lv
from lightning_vfe.models.wavefunction.density import ElectronDensity
from lightning_vfe.physics.local_energy import coulomb_energies, local_energy
from lightning_vfe.sampling.chains import Chains
from lightning_vfe.sampling.proposals import (
    ChainState,
    GaussianProposal,
    HamiltonianProposal,
    LangevinProposal,
    LogProb,
    Proposal,
)
from lightning_vfe.sampling.random import WalkerRandom
from lightning_vfe.sampling.walkers import initial_electrons

SEED, WINDOW = 1, 6.0
"""Autocorrelations are summed up to this many times their sum."""


class BlockProposal(GaussianProposal):
    """Gaussian moves of one block of electrons after the other: of one spin, or of `size` electrons, half up."""

    def __init__(self, num_atoms: int, size: int | None) -> None:
        half = num_atoms // 2
        spin = torch.arange(num_atoms) // half
        block = spin if size is None else torch.arange(num_atoms) % half // (size // 2)
        self.masks = [(block == number).to(torch.get_default_dtype()).unsqueeze(-1) for number in block.unique()]
        self.count = 0

    def __call__(
        self, log_prob: LogProb, state: ChainState, width: Tensor, noise: Tensor
    ) -> tuple[ChainState, Tensor | None]:
        """Proposal, and no correction."""
        self.count += 1
        return super().__call__(log_prob, state, width, noise * self.masks[self.count % len(self.masks)])


def rule_of(way: str, num_atoms: int) -> Proposal:
    """Of a name such as gaussian, gaussian:0.5 (target acceptance), spin:0.4, block4, langevin, hamiltonian-3."""
    name, _, target = way.partition(":")
    kind, _, number = name.partition("-")
    rules: dict[str, Callable[[], Proposal]] = {
        "gaussian": GaussianProposal,
        "spin": lambda: BlockProposal(num_atoms, None),
        "block": lambda: BlockProposal(num_atoms, int(number)),
        "langevin": LangevinProposal,
        "hamiltonian": lambda: HamiltonianProposal(int(number)),
    }
    rule = rules[kind]()
    if target:
        rule.target_acceptance = float(target)
    return rule


class Scene:
    """Protons and psi of a run, and what is measured on its electrons."""

    def __init__(self, folder: Path, num_protons: int, num_electrons: int, num_local: int) -> None:
        state = lv.load(folder).state
        walkers, self.ewald, self.psi, self.cell = state.walkers, state.ewald, state.wavefunction, state.system.cell
        assert walkers is not None
        self.protons, self.states = walkers.protons[:num_protons], walkers.states[:num_protons]  # units of rs
        rs = self.states.rs[:, None, None]
        density = ElectronDensity.prepare(self.psi, self.protons * rs, self.states, torch.float32)
        self.density, self.num_local = density.for_walkers(num_electrons), max(1, num_local // num_protons)
        self.random = WalkerRandom([0], SEED)
        self.start = initial_electrons(self.protons, num_electrons, self.random, self.cell, 1.0 / self.states.rs)
        chains = self.chains(GaussianProposal())
        for _ in range(40):
            chains.advance(15, adapt=True)
        self.start = chains.state.positions

    def chains(self, rule: Proposal) -> Chains:
        """From the start, in units of rs."""
        width = 0.24 if isinstance(rule, GaussianProposal) else 0.12
        return Chains(self.density, self.cell, self.start, rule, width, self.random)

    def observe(self, state: ChainState) -> Tensor:
        """ln|psi|^2, potential energy, distance to the nearest proton, waves of density and spin.  # (10, W, B)"""
        x, r, rs = self.protons.unsqueeze(1), state.positions, self.states.rs.unsqueeze(1)
        scale = rs[..., None, None]
        potential = coulomb_energies(self.ewald, x * scale, r * scale, rs)
        distance = self.cell.minimum_image(r.unsqueeze(-2) - x.unsqueeze(-3)).norm(dim=-1).amin(-1).mean(-1)
        phase = 2.0 * math.pi / self.cell.length * r  # three shortest wave vectors
        waves = torch.cat([phase.sin(), phase.cos()], dim=-1).unflatten(-2, (2, -1)).sum(-2)  # (W, B, 2, 6)
        waves = torch.cat([waves.sum(-2), waves[..., 0, :] - waves[..., 1, :]], dim=-1).movedim(-1, 0)
        return torch.cat([torch.stack([state.log_prob, potential.v_pe + potential.v_ee, distance]), waves])

    def local_energies(self, state: ChainState) -> Tensor:
        """E_loc of the first electron walkers.  # (W, b)"""
        scale = self.states.rs[:, None, None]
        r = state.positions[:, : self.num_local] * scale.unsqueeze(1)
        return local_energy(self.ewald, self.psi, self.protons * scale, r, self.states).total.real


class Time(NamedTuple):
    """An autocorrelation time and its standard error."""

    value: float
    error: float


def autocorrelation_time(series: np.ndarray) -> Time:
    """1 + 2 sum_t rho_t in records of a series (terms, T, W, B); one mean for each proton walker and term."""
    length = series.shape[1]
    centred = series - series.mean(axis=(1, 3), keepdims=True)
    spectrum = np.abs(np.fft.rfft(centred, n=2 * length, axis=1)) ** 2
    covariance = np.fft.irfft(spectrum, n=2 * length, axis=1)[:, :length].mean(axis=(0, 3))  # (T, W)
    covariance /= np.arange(length, 0, -1)[:, None]

    def time_of(mean: np.ndarray) -> float:
        sums = 2.0 * np.cumsum(mean / mean[0]) - 1.0
        beyond = np.flatnonzero(np.arange(length) > WINDOW / 2.0 * sums)
        return float(max(sums[beyond[0] if beyond.size else -1], 1e-3))

    count = covariance.shape[1]
    left_out = [time_of(np.delete(covariance, each, axis=1).mean(axis=1)) for each in range(count)]
    return Time(time_of(covariance.mean(axis=1)), math.sqrt((count - 1) * np.var(left_out)))


class Found(NamedTuple):
    """What a way reached."""

    acceptance: float
    target: float
    width: float
    seconds: float
    """Of a move of all walkers."""
    times: dict[str, Time]
    """In moves."""
    mean_energy: Time
    """Mean E_loc per atom, on which all ways must agree."""


@torch.no_grad()
def run(scene: Scene, way: str, num_moves: int, stride: int, local_every: int) -> Found:
    """Adapt, then record every `stride` moves, and E_loc at every `local_every`th record."""
    num_atoms = scene.start.shape[-2]
    rule = rule_of(way, num_atoms)
    chains = scene.chains(rule)
    for _ in range(12):
        chains.advance(max(10, num_moves // 60), adapt=True)
    seconds, accepted, series, energies = 0.0, 0.0, [], []
    records = num_moves // stride
    for record in range(records):
        begin = time.process_time()
        accepted += chains.advance(stride) / records
        seconds += time.process_time() - begin
        series.append(scene.observe(chains.state))
        if record % local_every == 0:
            energies.append(scene.local_energies(chains.state))
    seen, local = torch.stack(series, dim=1).numpy(), torch.stack(energies).unsqueeze(0).numpy()
    terms = {"ln psi^2": seen[:1], "V": seen[1:2], "distance": seen[2:3], "density": seen[3:9], "spin": seen[9:]}
    times = {name: autocorrelation_time(each) for name, each in terms.items()}
    times = {name: Time(stride * each.value, stride * each.error) for name, each in times.items()}
    each = autocorrelation_time(local)
    times["E_loc"] = Time(stride * local_every * each.value, stride * local_every * each.error)
    samples = local.size * stride * local_every / max(times["E_loc"].value, stride * local_every)
    mean = Time(local.mean() / num_atoms, (local - local.mean(axis=(1, 3), keepdims=True)).std() / num_atoms)
    mean = Time(mean.value, mean.error / math.sqrt(samples))
    return Found(accepted, rule.target_acceptance, float(chains.log_width.exp()), seconds / num_moves, times, mean)


COLUMNS = ("ln psi^2", "V", "E_loc", "distance", "density", "spin")


def row(way: str, found: Found, num_walkers: int) -> str:
    """One line of the table."""
    milli = 1e3 * found.seconds
    times = "".join(
        f"{found.times[name].value * milli:>8.0f}({found.times[name].error * milli:.0f})" for name in COLUMNS
    )
    slowest = max(found.times.values(), key=lambda each: each.value)
    rates = f"{num_walkers / found.times['E_loc'].value / found.seconds:>9.0f}"
    rates += f"{num_walkers / slowest.value / found.seconds:>7.0f}"
    start = f"{way:<17}{found.acceptance:>6.2f}{found.target:>6.2f}{found.width:>7.3f}{milli:>8.2f}"
    moves = f"{found.times['ln psi^2'].value:>7.1f}{slowest.value:>7.1f}"
    return f"{start}{moves}{times}{rates}{found.mean_energy.value:>10.4f}({found.mean_energy.error:.4f})"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run of fit with sampled protons")
    parser.add_argument(
        "--ways", nargs="+", default=DEFAULT_WAYS, help="names, with :0.5 for a target acceptance of 0.5"
    )
    parser.add_argument("--moves", type=int, default=1200, help="Gaussian moves; others in proportion to their cost")
    parser.add_argument(
        "--walkers", type=int, nargs=2, default=[16, 8], help="proton walkers, electron walkers for each"
    )
    parser.add_argument("--local-walkers", type=int, default=64, help="walkers whose E_loc is measured")
    return parser.parse_args()


DEFAULT_WAYS = [
    *(f"gaussian:{target}" for target in (0.2, 0.3, 0.4, 0.5, 0.6)),
    *("spin:0.3", "spin:0.4", "block-4:0.3", "block-4:0.4"),
    *("langevin:0.4", "langevin:0.574", "langevin:0.7"),
    *("hamiltonian-2:0.65", "hamiltonian-3:0.65", "hamiltonian-5:0.65"),
]


def main() -> None:
    arguments = parse()
    start_on_one_thread()
    scene = Scene(arguments.run, *arguments.walkers, arguments.local_walkers)
    num_walkers = math.prod(scene.start.shape[:2])
    print(f"N = {scene.start.shape[-2]}, {num_walkers} walkers; times in ms of a move of all of them")
    names = "".join(f"{name:>11}" for name in COLUMNS)
    print(
        f"{'way':<17}{'acc':>6}{'goal':>6}{'width':>7}{'ms':>8}{'moves':>7}{'slow':>7}{names}"
        f"{'E/s':>9}{'slow/s':>7}{'E_loc / N':>14}"
    )
    for way in arguments.ways:
        kind, _, number = way.partition(":")[0].partition("-")
        cost = {"langevin": 6, "hamiltonian": 6 * int(number or 1)}.get(kind, 1)
        moves, stride = max(60, arguments.moves // cost), max(1, 6 // cost)
        found = run(scene, way, moves, stride, 2 if cost < 6 else 1)
        print(row(way, found, num_walkers), flush=True)


if __name__ == "__main__":
    main()
