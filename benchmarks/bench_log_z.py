"""ln Z of the one-component plasma at several Gamma from one MBAR problem, beside independent routes.

    python benchmarks/bench_log_z.py
    python benchmarks/bench_log_z.py --num-atoms 32 --gamma 1 10 --error 0.002

For each Gamma prints f = -(ln Z - 3N ln L)/N, the excess free energy per particle in kT, with its error: of all Gamma
as the states of one problem; of an integration of its own; integrated from <E>/kT at Gauss-Legendre nodes of
sqrt(Gamma), by chains and an estimator that share nothing with the integrations but the moves; and the published f of
the infinite system with the finite-size correction of `fluctuation_correction`. Seconds are those of one thread.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from pathlib import Path

import numpy as np
import torch
from scipy.integrate import quad
from torch import Tensor

from lightning_vfe.log_z.integrate import integrate, integrate_path
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


def fluctuation_correction(num_atoms: int, gamma: float) -> float:
    """f of N particles less that of infinitely many, in the random-phase approximation:

        (1/2N) [sum over k != 0 - V int d^3k/(2 pi)^3] ln(1 + q^2/k^2),    q^2 = 3 Gamma (lengths in units of rs).

    Each wave of the density is a Gaussian with 1/S(k) = 1 + q^2/k^2; what is linear in q^2/k^2 is the Madelung energy.
    With ln(1 + q^2/k^2) = int dt/t exp(-k^2 t) [1 - exp(-q^2 t)], both are integrals over t.
    """
    length = (4.0 * math.pi * num_atoms / 3.0) ** (1.0 / 3.0)
    waves = np.arange(-12, 13)

    def waves_less_integral(t: float) -> float:
        exponent = (2.0 * math.pi / length) ** 2 * t
        # by Poisson's sum the two cancel for small t, but for the wave k = 0
        if exponent < 0.3:
            return -1.0
        return float(np.exp(-exponent * waves**2).sum() ** 3 - (math.pi / exponent) ** 1.5 - 1.0)

    def integrand(log_t: float) -> float:
        t = math.exp(log_t)
        return -math.expm1(-3.0 * gamma * t) * waves_less_integral(t)

    knee = math.log(0.3 * (length / (2.0 * math.pi)) ** 2)
    total = sum(quad(integrand, *ends, limit=200)[0] for ends in ((-30.0, knee), (knee, 30.0)))
    return 0.5 * total / num_atoms


def published() -> dict[float, float]:
    """f of the infinite system by Gamma (Potekhin and Chabrier, Phys. Rev. E 62, 8554 (2000))."""
    with REFERENCE.open() as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return {float(row["Gamma"]): float(row["f_ex"]) for row in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-atoms", type=int, default=16)
    parser.add_argument("--gamma", type=float, nargs="+", default=[1.0, 2.0, 5.0, 10.0], help="in rising order")
    parser.add_argument("--error", type=float, default=0.002, help="wanted error per particle in kT")
    parser.add_argument("--check-sweeps", type=int, default=200, help="of the route by <E>; 0 leaves it out")
    parser.add_argument("--no-single", action="store_true", help="leave the integrations of single Gamma out")
    parser.add_argument("--seed", type=int, default=42)
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    count, gammas, infinite = arguments.num_atoms, arguments.gamma, published()
    cell = PeriodicCell(count, 1.0)
    ewald, ideal = Ewald(cell, 1e-5), 3 * count * math.log(cell.length)
    # Large cells need few sweeps for this error: F/N averages over many particles.
    settings = LogZSettings(
        target_error_per_atom=arguments.error, num_sweeps=100, max_sweeps=10000, pilot_sweeps=25, seed=arguments.seed
    )
    started = time.process_time()
    stages, targets = torch.tensor(gammas)[:, None], range(1, len(gammas) + 1)
    joint = integrate_path([ewald.proton_energy], stages, list(targets), cell, 1.0, settings)
    verdict = "converged" if joint.converged else "; ".join(joint.reasons)
    seconds = time.process_time() - started
    print(f"one-component plasma, N = {count}: one problem, {len(joint.windows)} windows, {seconds:.0f} s, {verdict}")
    for gamma, log_z, error in zip(gammas, joint.log_z, joint.errors, strict=True):
        value, correction = -(log_z - ideal) / count, fluctuation_correction(count, gamma)
        known = f"{infinite[gamma]:.5f}" if gamma in infinite else "unknown"
        print(
            f"Gamma = {gamma:g}: f = {value:.5f} +- {error / count:.5f}; published for infinite N "
            f"{known}, {correction:+.5f} for N = {count}",
            flush=True,
        )
        if not arguments.no_single:
            started = time.process_time()
            single = integrate([ewald.proton_energy], cell, 1.0 / gamma, settings)
            found = -(single.log_z - ideal) / count, single.log_z_error / count
            seconds = time.process_time() - started
            _print_beside("integration of its own", (value, error / count), found, f", {seconds:.0f} s")
        if arguments.check_sweeps:
            total, spread = integrated_energy(ewald, gamma, 32, arguments.check_sweeps)
            _print_beside("from <E>", (value, error / count), (total / count, spread / count))


def _print_beside(route: str, own: tuple[float, float], other: tuple[float, float], more: str = "") -> None:
    sigmas = (own[0] - other[0]) / math.hypot(own[1], other[1])
    print(f"    {route}: f = {other[0]:.5f} +- {other[1]:.5f}, {sigmas:+.1f} errors apart{more}", flush=True)


if __name__ == "__main__":
    main()
