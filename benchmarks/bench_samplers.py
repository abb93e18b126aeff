"""Which way of sampling the protons gives most independent samples a second?

    python benchmarks/bench_samplers.py
    python benchmarks/bench_samplers.py --base uniform --flow-ckpt runs/flow_mle_rs1p25_6000K/checkpoints/last.ckpt
    python benchmarks/bench_samplers.py --base schnet --num-atoms 14 --ways direct delayed

One sweep moves all proton walkers; electrons take no part. Columns: moves in a sweep; their adapted width in bohr; the
accepted fraction of the moves and, where acceptance is delayed, of the ends of the chains; processor seconds of a
sweep; autocorrelation times, in sweeps, of ln p(x) (with a potential, of E_ML(z) where that is longer) and of the mean
distance of nearest neighbours; effective samples a second by the longest of them; and the mean of that distance, on
which all ways must agree. Without --flow-ckpt the map is random, and moves particles by some hundredths of rs. The
chains start from draws of p(x) and have a third of the sweeps for their widths to settle.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import NamedTuple

import torch
from bench_flow import trained_like
from measure import start_on_one_thread
from torch import Tensor

from lightning_vfe.models.base.boltzmann import BoltzmannBase
from lightning_vfe.models.base.uniform import UniformBase
from lightning_vfe.models.flow.equivariant_flow import EquivariantFlow
from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.state_point import StatePoint, WalkerStates
from lightning_vfe.physics.statistics import Estimate, estimate
from lightning_vfe.physics.strata import Strata
from lightning_vfe.physics.system import System
from lightning_vfe.sampling.chains import Chains
from lightning_vfe.sampling.nested import NestedSampler, SweepReport
from lightning_vfe.sampling.proposals import LangevinProposal
from lightning_vfe.sampling.proton_moves import PROTON_SAMPLING
from lightning_vfe.sampling.random import WalkerRandom
from lightning_vfe.state.targets import ProtonTargets
from lightning_vfe.workflows.restore import restore

POINT, POTENTIAL = StatePoint(1.25, 6000.0), "potentials/h_rs1p25_6000K.pt"
SEED = 1


class Way(NamedTuple):
    """How the protons are moved in a sweep."""

    sampling: str
    rule: str
    num_moves: int


class Found(NamedTuple):
    """What a way reached."""

    seconds: float
    terms: list[Estimate]
    """ln p(x), E_ML(z) in Ha, mean distance of nearest neighbours in bohr."""
    reports: list[SweepReport]


def ways(density: ProtonDensity) -> list[Way]:
    """What is compared; a base that can be drawn has no chains."""
    chains = [Way(kind, "gaussian", moves) for kind, moves in (("metropolis", 10), ("delayed", 10), ("delayed", 30))]
    if hasattr(density.base, "sample"):
        return [*chains, Way("direct", "gaussian", 1)]
    return [*chains, *(Way("direct", "langevin", moves) for moves in (2, 5, 10))]


def states_of(num_walkers: int) -> WalkerStates:
    """The state point, for as many walkers."""
    return WalkerStates.at(POINT.rs, POINT.temperature_kelvin, torch.zeros(num_walkers, 3))


def draws(density: ProtonDensity, num_atoms: int, num_walkers: int) -> Tensor:
    """Protons x of p(x) in bohr, by way of the base.  # (W, N, 3)"""
    base, cell, states = density.base, POINT.cell(num_atoms), states_of(num_walkers)
    random = WalkerRandom([0], SEED)
    z = cell.length * random.uniform((num_walkers, cell.num_atoms, 3), torch.get_default_dtype())
    if not hasattr(base, "sample"):
        chains = Chains(lambda z: base.log_prob(z, states), cell, z, LangevinProposal(), 0.1, random)
        for _ in range(60):
            chains.advance(5, adapt=True)
        z = chains.state.positions
    return cell.wrap(density.flow.from_base(z, states).x)


def nearest_distance(cell: PeriodicCell, x: Tensor) -> Tensor:
    """Mean over the protons of the minimum-image distance to the nearest other one, in bohr.  # (W,)"""
    distance = cell.minimum_image(x[:, :, None] - x[:, None]).norm(dim=-1)
    distance.diagonal(dim1=1, dim2=2).fill_(math.inf)
    return distance.amin(dim=-1).mean(dim=-1)


@torch.no_grad()
def run(density: ProtonDensity, way: Way, x: Tensor, num_sweeps: int, dtype: torch.dtype) -> Found:
    """Move walkers x, first with widths that adapt, then with frozen ones."""
    system, states = System(x.shape[1]), states_of(len(x))
    sampler = NestedSampler(system, way.rule, num_proton_steps=way.num_moves, proton_sampling=way.sampling)
    stratum, random = torch.zeros(len(x), dtype=torch.int64), WalkerRandom([0], SEED)
    walkers = sampler.start(x / POINT.rs, states, stratum, None, random)
    targets = ProtonTargets(density, way.sampling, dtype)

    def sweep(adapt: bool) -> SweepReport:
        return sampler.step(walkers, targets.at(states), None, adapt)

    for _ in range(num_sweeps // 3):
        sweep(adapt=True)
    seconds, series, reports = 0.0, [], []
    for _ in range(num_sweeps):
        begin = time.process_time()
        reports.append(sweep(adapt=False))
        seconds += time.process_time() - begin
        x = walkers.protons * POINT.rs
        terms, distance = density.evaluate(x, states), nearest_distance(POINT.cell(system.num_atoms), x)
        series.append(torch.stack([terms.log_prob, terms.base_energy, distance]))
    return Found(seconds / num_sweeps, [estimate(one) for one in torch.stack(series).unbind(1)], reports)


def row(way: Way, found: Found, num_walkers: int) -> str:
    """One line of the table."""
    last, neighbour = found.reports[-1], found.terms[-1]
    times = [term.autocorrelation_time for term in found.terms]
    accepted, decided = (
        sum(float(report[name]) for report in found.reports) / len(found.reports) if name in last else math.nan
        for name in ("proton_acceptance", "delayed_acceptance")
    )
    width = POINT.rs * float(last["proton_width_rs"])
    return (
        f"{way.sampling:<11}{way.rule:<10}{way.num_moves:>5}{width:>7.3f}{accepted:>8.2f}{decided:>8.2f}"
        f"{found.seconds:>9.4f}{max(times[:2]):>7.1f}{times[2]:>7.1f}{num_walkers / max(times) / found.seconds:>9.1f}"
        f"{neighbour.value:>10.4f}({neighbour.error:.4f})"
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", nargs="+", choices=["uniform", "schnet"], default=["uniform", "schnet"])
    parser.add_argument("--num-atoms", nargs="+", type=int, default=[8, 14], help="8, 14 or 16 with base schnet")
    parser.add_argument("--ways", nargs="+", choices=PROTON_SAMPLING, default=PROTON_SAMPLING)
    parser.add_argument("--walkers", type=int, default=16)
    parser.add_argument("--sweeps", type=int, default=60)
    parser.add_argument("--readout", type=float, default=0.3, help="spread of the last weights: strength of the map")
    parser.add_argument("--flow-ckpt", type=Path, help="checkpoint whose flow is taken")
    parser.add_argument("--chain-dtype", choices=["float32", "float64"], default="float32", help="of chains on p(x)")
    return parser.parse_args()


def build(arguments: argparse.Namespace, base: str, num_atoms: int) -> ProtonDensity:
    """p(x) of a base and a map."""
    torch.manual_seed(SEED)
    system = System(num_atoms)
    flow = EquivariantFlow(system, POINT)
    if arguments.flow_ckpt is None:
        trained_like(flow, arguments.readout)
    else:
        content = torch.load(arguments.flow_ckpt, map_location="cpu", weights_only=True)
        restore(flow, content, "proton_density.flow", "flow_ckpt", arguments.flow_ckpt)
    if base == "uniform":
        return ProtonDensity(UniformBase(system), flow)
    strata = Strata.of(POINT.rs, POINT.temperature_kelvin)
    return ProtonDensity(BoltzmannBase.from_files(system, strata, POTENTIAL), flow)


def main() -> None:
    arguments = parse()
    start_on_one_thread()
    for base in arguments.base:
        for num_atoms in arguments.num_atoms:
            density = build(arguments, base, num_atoms)
            x = draws(density, num_atoms, arguments.walkers)
            spread = density.flow.to_base(x, states_of(len(x))).log_abs_det_dzdx.detach().std()
            print(f"\nbase {base}, N = {num_atoms}, {arguments.walkers} walkers, spread of ln|det| {float(spread):.2f}")
            print(
                f"{'sampling':<11}{'rule':<10}{'moves':>5}{'width':>7}{'accept':>8}{'decide':>8}{'s':>9}"
                f"{'tau':>7}{'tau nn':>7}{'ESS/s':>9}{'neighbour':>10}"
            )
            for way in ways(density):
                if way.sampling in arguments.ways:
                    found = run(density, way, x, arguments.sweeps, getattr(torch, arguments.chain_dtype))
                    print(row(way, found, arguments.walkers), flush=True)


if __name__ == "__main__":
    main()
