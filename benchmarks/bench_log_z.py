"""ln Z of the one-component plasma: the integration's result and cost beside an independent route and the literature.

    python benchmarks/bench_log_z.py
    python benchmarks/bench_log_z.py --num-atoms 32 --gamma 10 --error 0.002

For each Gamma prints f = -(ln Z - 3N ln L)/N, the excess free energy per particle in kT, with its error; the same
integrated from <E>/kT at Gauss-Legendre nodes of sqrt(Gamma), by chains and an estimator that share nothing with the
integration but the moves; the infinite system's f, which a small cell undercuts by about 1.2/N at Gamma = 1; and
seconds on one thread.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightning_vfe.log_z.integrate import integrate
from lightning_vfe.log_z.settings import LogZSettings
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.ewald import Ewald
from lightning_vfe.physics.statistics import estimate
from lightning_vfe.sampling.metropolis import metropolis
from lightning_vfe.sampling.proposals import LangevinProposal
from lightning_vfe.sampling.random import WalkerRandom

REFERENCE = Path(__file__).parents[1] / "tests" / "exact" / "reference" / "ocp.csv"


def integrated_energy(ewald: Ewald, gamma: float, chains: int, sweeps: int, nodes: int = 10) -> tuple[float, float]:
    """F_ex/kT = int_0^Gamma <E> dg = int_0^sqrt(Gamma) <E> 2s ds at g = s^2, from random starts: value, error."""
    cell, rule, total, variance = ewald.cell, LangevinProposal(), 0.0, 0.0
    for number, (node, weight) in enumerate(zip(*np.polynomial.legendre.leggauss(nodes), strict=True)):
        root = 0.5 * math.sqrt(gamma) * (1.0 + node)
        random, series = WalkerRandom(range(1), seed=1000 + number), []
        positions = cell.length * random.uniform((chains, cell.num_atoms, 3), dtype=torch.float64)
        width = torch.tensor(min(0.5, 0.3 / root) * (16 / cell.num_atoms) ** (1 / 6))

        def log_prob(z: Tensor, coupling: float = root**2) -> Tensor:
            return -coupling * ewald.proton_energy(z)

        for sweep in range(sweeps):
            state = rule.evaluate(log_prob, positions)
            state, _ = metropolis(log_prob, state, rule, width, 5, random, cell.wrap)
            positions = state.positions
            if sweep >= sweeps // 4:
                series.append(-state.log_prob / root**2)
        found, factor = estimate(torch.stack(series)), math.sqrt(gamma) * root * weight
        total, variance = total + factor * found.value, variance + (factor * found.error) ** 2
    return total, math.sqrt(variance)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-atoms", type=int, default=16)
    parser.add_argument("--gamma", type=float, nargs="+", default=[1.0, 5.0, 10.0])
    parser.add_argument("--error", type=float, default=0.002, help="wanted error per particle in kT")
    parser.add_argument("--check-sweeps", type=int, default=200, help="of the independent route; 0 leaves it out")
    parser.add_argument("--seed", type=int, default=42)
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    with REFERENCE.open() as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        infinite = {float(row["Gamma"]): float(row["f_ex"]) for row in rows}
    cell = PeriodicCell(arguments.num_atoms, 1.0)
    ewald, count = Ewald(cell, 1e-5), arguments.num_atoms
    # Large cells need few sweeps for this error: F/N averages over many particles.
    settings = LogZSettings(
        target_error_per_atom=arguments.error, num_sweeps=100, max_sweeps=10000, pilot_sweeps=25, seed=arguments.seed
    )
    print(f"one-component plasma, N = {count}, one thread")
    for gamma in arguments.gamma:
        started = time.process_time()
        found = integrate([ewald.proton_energy], cell, 1.0 / gamma, settings)
        seconds = time.process_time() - started
        excess = -(found.log_z - 3 * count * math.log(cell.length)) / count
        least = min(window.overlap_with_next for window in found.windows if window.overlap_with_next is not None)
        verdict = "converged" if found.converged else "; ".join(found.reasons)
        print(
            f"Gamma = {gamma:g}: f = {excess:.5f} +- {found.log_z_error / count:.5f}, infinite system "
            f"{infinite.get(gamma, math.nan):.5f}, {len(found.windows)} windows, least overlap {least:.2f}, "
            f"{seconds:.0f} s, {verdict}",
            flush=True,
        )
        if arguments.check_sweeps:
            value, error = integrated_energy(ewald, gamma, 32, arguments.check_sweeps)
            sigmas = (excess - value / count) / math.hypot(error / count, found.log_z_error / count)
            print(
                f"    from <E>: f = {value / count:.5f} +- {error / count:.5f}, {sigmas:+.1f} errors apart", flush=True
            )


if __name__ == "__main__":
    main()
