"""The flow alone on a classical target: the one-component plasma, whose potential is the protons' Ewald energy."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.ewald import Ewald
from lightning_vfe.physics.state_point import WalkerStates
from lightning_vfe.physics.statistics import estimate
from lightning_vfe.physics.units import KELVIN_TO_HARTREE
from lightning_vfe.sampling.metropolis import metropolis
from lightning_vfe.sampling.proposals import GaussianProposal
from lightning_vfe.sampling.random import WalkerRandom
from lightning_vfe.training.variational.objective import Groups, flow_loss
from tests.helpers.states import states_at


def pair_grid(cell: PeriodicCell, points: int) -> Tensor:
    """Two protons with all relative vectors of a cubic grid that avoids zero. # (points^3, 2, 3)"""
    axis = (torch.arange(points) + 0.5) * (cell.length / points)
    vectors = torch.cartesian_prod(axis, axis, axis)
    return torch.stack([torch.zeros_like(vectors), vectors], dim=1)


def exact_excess_free_energy(cell: PeriodicCell, kT: float, points: int = 40) -> float:
    """-kT ln (1/L^3 int d^3d exp(-E(d)/kT)) of two protons, Ha for the cell, by quadrature."""
    energy = Ewald(cell).proton_energy(pair_grid(cell, points))
    return -kT * (torch.logsumexp(-energy / kT, 0).item() - 3 * math.log(points))


def plasma_states(cell: PeriodicCell, kT: float, num_walkers: int) -> WalkerStates:
    """The states of all walkers, kT in Ha. # (W,)"""
    return states_at(cell, num_walkers, kelvin=kT / KELVIN_TO_HARTREE)


def train(density: ProtonDensity, cell: PeriodicCell, kT: float, steps: int, walkers: int, rate: float) -> Tensor:
    """Minimise E_p[kT ln p + E] with score-function gradients and Adam; returns the last protons (W, N, 3)."""
    ewald, rule, random = Ewald(cell), GaussianProposal(), WalkerRandom(range(1), seed=3)
    positions = cell.length * random.uniform((walkers, cell.num_atoms, 3), dtype=torch.float64)
    states, group = plasma_states(cell, kT, walkers), Groups.one(walkers, positions)

    def log_prob(x: Tensor) -> Tensor:
        return density.log_prob(x, states)

    optimizer = torch.optim.Adam(density.parameters(), lr=rate)
    width = torch.tensor(0.25 * cell.length)
    for step in range(steps):
        state = rule.evaluate(log_prob, positions)
        state, _ = metropolis(log_prob, state, rule, width, 4, random, cell.wrap)
        positions = state.positions
        energy = ewald.proton_energy(positions)
        loss = flow_loss(log_prob(positions), energy, states.kT, 5.0, lambda values: values, group)
        optimizer.param_groups[0]["lr"] = rate / (1 + 3 * step / steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return positions


def thermodynamic_integration(cell: PeriodicCell, kT: float, walkers: int, sweeps: int) -> tuple[float, float]:
    """F - F_ideal = int_0^1 <E>_lambda d lambda by Gauss-Legendre, chains on exp(-lambda E/kT): value, error in Ha."""
    ewald, rule = Ewald(cell), GaussianProposal()
    nodes, weights = np.polynomial.legendre.leggauss(6)
    total, variance = 0.0, 0.0
    for i, (node, weight) in enumerate(zip(0.5 * (nodes + 1), 0.5 * weights, strict=True)):
        random = WalkerRandom(range(1), seed=10 + i)
        positions = cell.length * random.uniform((walkers, cell.num_atoms, 3), dtype=torch.float64)

        def log_prob(x: Tensor, scale: float = node) -> Tensor:
            return -scale / kT * ewald.proton_energy(x)

        width, series = torch.tensor(0.1 * cell.length), []
        for sweep in range(sweeps):
            state = rule.evaluate(log_prob, positions)
            state, _ = metropolis(log_prob, state, rule, width, 5, random, cell.wrap)
            positions = state.positions
            if sweep >= sweeps // 4:
                series.append(ewald.proton_energy(positions))
        found = estimate(torch.stack(series))
        total, variance = total + weight * found.value, variance + (weight * found.error) ** 2
    return total, math.sqrt(variance)
