"""The flow alone against an exact free energy: the one-component plasma from a uniform base, by natural gradient.

    python benchmarks/bench_plasma_flow.py
    python benchmarks/bench_plasma_flow.py --gamma 5 --steps 120 --walkers 512

Protons are independent draws: z uniform, x by inverting the map. Prints f = (F - F_ideal) / (N kT) of the flow while it
trains, at the end with fresh draws and parameters as they are, and beside it the exact value by thermodynamic
integration. The flow's f is an upper bound.
"""

from __future__ import annotations

import argparse
import math
import time

import torch
from torch import Tensor

from lightning_vfe.log_z.integrate import integrate
from lightning_vfe.log_z.settings import LogZSettings
from lightning_vfe.models.base.uniform import UniformBase
from lightning_vfe.models.flow.equivariant_flow import EquivariantFlow
from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.optim.natural_gradient import NaturalGradientOptimizer
from lightning_vfe.optim.solve import ScoreBlock
from lightning_vfe.physics.ewald import Ewald
from lightning_vfe.physics.state_point import StatePoint, WalkerStates
from lightning_vfe.physics.system import System
from lightning_vfe.physics.units import KELVIN_TO_HARTREE
from lightning_vfe.training.variational.objective import Groups, flow_residuals


class Plasma:
    """The flow's density and the plasma's energy in a cell with rs = 1 and kT = 1 / Gamma."""

    def __init__(self, num_atoms: int, gamma: float, seed: int) -> None:
        torch.manual_seed(seed)
        system, self.point = System(num_atoms), StatePoint(1.0, 1.0 / gamma / KELVIN_TO_HARTREE)
        self.cell, self.kT = self.point.cell(num_atoms), self.point.kT
        self.ewald = Ewald(self.cell, 1e-6)
        self.density = ProtonDensity(UniformBase(system), EquivariantFlow(system, self.point))

    def states(self, walkers: int) -> WalkerStates:
        """The state point of as many walkers."""
        return WalkerStates.at(self.point.rs, self.point.temperature_kelvin, torch.zeros(walkers, 3))

    @torch.no_grad()
    def draw(self, walkers: int) -> Tensor:
        """Independent protons of p(x).  # (W, N, 3)"""
        z = self.cell.length * torch.rand(walkers, self.cell.num_atoms, 3)
        found = self.density.flow.from_base(z, self.states(walkers))
        if not found.converged.all():
            raise RuntimeError(f"{int((~found.converged).sum())} of {walkers} inversions failed")
        return self.cell.wrap(found.x)

    @torch.no_grad()
    def excess(self, x: Tensor) -> Tensor:
        """[ln p(x) + E / kT + 3N ln L] / N of every walker: its mean is f.  # (W,)"""
        terms = self.density.evaluate(x, self.states(len(x)))
        if (terms.sign_det_dzdx <= 0).any():
            print("NEGATIVE DETERMINANTS: p(x) is not normalised")
        ideal = 3 * self.cell.num_atoms * math.log(self.cell.length)
        return (terms.log_prob + self.ewald.proton_energy(x) / self.kT + ideal) / self.cell.num_atoms

    def block(self, x: Tensor) -> ScoreBlock:
        """Scores and clipped energies, the latter in units of kT."""
        log_prob, scores = self.density.scores(x, self.states(len(x)))
        energy = self.ewald.proton_energy(x) / self.kT
        groups, kT = Groups.one(len(x), energy), torch.ones_like(energy)
        residuals = flow_residuals(log_prob, energy, kT, 5.0, lambda values: values, groups)
        return ScoreBlock(scores.unsqueeze(1), residuals.unsqueeze(1), groups.label)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-atoms", type=int, default=16)
    parser.add_argument("--gamma", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--walkers", type=int, default=128)
    parser.add_argument("--max-norm", type=float, default=0.02)
    parser.add_argument("--damping", type=float, default=1e-2)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--draws", type=int, default=1024, help="for the final value")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    plasma = Plasma(given.num_atoms, given.gamma, given.seed)
    settings = {"flow": 1.0}, {"flow": given.damping}, {"flow": given.max_norm}
    optimizer = NaturalGradientOptimizer({"flow": plasma.density.parameters()}, *settings, momentum=given.momentum)
    start = time.process_time()
    for step in range(given.steps):
        optimizer.param_groups[0]["lr"] = 1.0 / (1.0 + 3.0 * step / given.steps)
        x = plasma.draw(given.walkers)
        optimizer.step(lambda x=x: {"flow": plasma.block(x)})
        if step % 5 == 4:
            f = plasma.excess(x)
            error = f.std() / len(f) ** 0.5
            print(
                f"step {step + 1}: f = {f.mean():.4f}({error:.4f}), {time.process_time() - start:.0f} CPU s", flush=True
            )
    f = torch.cat([plasma.excess(plasma.draw(64)) for _ in range(math.ceil(given.draws / 64))])
    error = float(f.std()) / len(f) ** 0.5
    print(f"flow: f = {f.mean():.4f}({error:.4f}) after {time.process_time() - start:.0f} CPU s")

    wanted = LogZSettings(target_error_per_atom=0.003, num_sweeps=100, max_sweeps=10000, pilot_sweeps=25)
    exact = integrate([plasma.ewald.proton_energy], plasma.cell, plasma.kT, wanted)
    volume = 3 * given.num_atoms * math.log(plasma.cell.length)
    value, spread = -(exact.log_z - volume) / given.num_atoms, exact.log_z_error / given.num_atoms
    difference = float(f.mean()) - value
    print(
        f"exact: f = {value:.4f}({spread:.4f}); the flow is {difference:.4f}({math.hypot(error, spread):.4f}) kT above"
    )


if __name__ == "__main__":
    main()
