"""F, E and S of a tested run of N = 2 at the Gamma point, beside quadrature with E_psi(d) of its wavefunction.

    python benchmarks/quadrature.py runs/n2_longer --electrons 8 --sweeps 100

The energy of two protons depends on their relative vector d alone. It is computed by Monte Carlo over the electrons on
a grid of the cell, with the weights of its cubic symmetry, and integrated:

    F = -kT ln[L^3 int d^3d exp(-E(d)/kT)] + kT [ln 2! + 6 ln lambda_dB],   E = <E(d)> + 3 kT,   S = (E - F)/T,

for the cell of two atoms. Noise of E(d) makes exp(-E(d)/kT) too large on average; both averages are corrected for it.
The run and the quadrature have the wavefunction in common. The quadrature knows neither flow nor base.
"""

from __future__ import annotations

import argparse
import itertools
import math

import numpy as np
import torch

import lightning_vfe as lv
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.free_energy import momentum_free_energy
from lightning_vfe.physics.strata import Strata
from lightning_vfe.physics.system import System
from lightning_vfe.state.electron_averages import ElectronMonteCarlo

NAMES = {"F": "free_energy_per_atom", "E": "energy_per_atom", "S": "entropy_per_atom"}
RESAMPLINGS = 400


def grid(points: int) -> tuple[np.ndarray, np.ndarray]:
    """Midpoints of `points`^3 cells that differ by cubic symmetry, in units of L, and how often each occurs."""
    corners = list(itertools.combinations_with_replacement(range(points // 2), 3))
    counts = [8.0 * len(set(itertools.permutations(corner))) for corner in corners]
    return (np.array(corners) + 0.5) / points, np.array(counts)


def integrals(energy: np.ndarray, error: np.ndarray, counts: np.ndarray, cell: PeriodicCell, kT: float) -> np.ndarray:
    """F and E in Ha and S in k_B, per atom, from E(d) of the cell and its standard errors.

    <exp(-E/kT)> of a normal E with the error s is larger by exp(s^2 / 2 kT^2), and <E exp(-E/kT)> has E - s^2/kT.
    """
    exponent = -(energy + error**2 / (2.0 * kT)) / kT
    weights = counts * np.exp(exponent - exponent.max())
    log_z = exponent.max() + math.log(weights.sum() / counts.sum()) + 6.0 * math.log(cell.length)
    momenta = float(momentum_free_energy(System(2), torch.tensor(kT, dtype=torch.float64)))
    free_energy = 0.5 * (-kT * log_z + momenta)
    mean = 0.5 * (float(weights @ (energy + error**2 / kT)) / weights.sum() + 3.0 * kT)
    return np.array([free_energy, mean, (mean - free_energy) / kT])


def main() -> None:
    """Print one line for each state: the run, the quadrature, and the difference in errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of a tested run of N = 2")
    parser.add_argument("--points", type=int, default=12, help="of the grid along each edge; an even number")
    parser.add_argument("--electrons", type=int, default=8, help="electron walkers of each configuration")
    parser.add_argument("--sweeps", type=int, default=100, help="measured sweeps")
    parser.add_argument("--seed", type=int, default=7, help="of the electrons")
    args = parser.parse_args()
    run = lv.load(args.run)
    state, results = run.state, run.results
    places, counts = grid(args.points)
    random = np.random.default_rng(args.seed)
    known: dict[float, tuple[np.ndarray, np.ndarray]] = {}
    for point in state.strata.points:
        cell = point.cell(2)
        if point.rs not in known:
            protons = torch.zeros(len(places), 2, 3, dtype=torch.float64)
            protons[:, 1] = cell.length * torch.from_numpy(places)
            strata, moves = Strata((point,), state.strata.twists), (args.electrons, 30, args.sweeps, args.seed)
            averages = ElectronMonteCarlo(state.system, strata, state.wavefunction, state.sampler, *moves)
            found = [each.energy for each in averages.averages(protons)]
            known[point.rs] = np.array([e.value for e in found if e]), np.array([e.error for e in found if e])
        energy, error = known[point.rs]
        value = integrals(energy, error, counts, cell, point.kT)
        noisy = energy + error * random.normal(size=(RESAMPLINGS, len(energy)))
        errors = np.std([integrals(each, error, counts, cell, point.kT) for each in noisy], axis=0)
        own = results.loc[(point.rs, point.temperature_kelvin)] if len(state.strata.points) > 1 else results
        words = []
        for number, (symbol, name) in enumerate(NAMES.items()):
            difference = own.loc[name, "value"] - value[number]
            sigmas = difference / math.hypot(own.loc[name, "error"], errors[number])
            exact = f"{value[number]:.5f}({errors[number]:.5f})"
            words.append(f"{symbol} {own.loc[name, 'value']:.5f}, quadrature {exact}, {sigmas:+.1f} errors")
        print(f"rs = {point.rs:g}, T = {point.temperature_kelvin:g} K: " + "; ".join(words), flush=True)


if __name__ == "__main__":
    main()
