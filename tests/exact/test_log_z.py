"""ln Z of interacting protons: two of them by quadrature, four of a plasma by integrating their energy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_vfe.log_z.integrate import integrate
from lightning_vfe.log_z.settings import LogZSettings
from lightning_vfe.models.potential.potential import Potential
from lightning_vfe.models.potential.schnet import SchNetPotential
from lightning_vfe.models.potential.yukawa import YukawaPotential
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.ewald import Ewald
from lightning_vfe.physics.statistics import estimate
from lightning_vfe.physics.units import KELVIN_TO_HARTREE
from lightning_vfe.sampling.metropolis import metropolis
from lightning_vfe.sampling.proposals import LangevinProposal
from lightning_vfe.sampling.random import WalkerRandom
from tests.helpers.plasma import pair_grid

CELL, KT = PeriodicCell(2, 1.25), KELVIN_TO_HARTREE * 6000.0


def exact_log_z(potential: Potential, points: int) -> float:
    """ln int exp(-E/kT) of two protons: one of them anywhere, the relative vector on a grid of the whole cell."""
    energy = torch.cat([potential.energy(part, CELL) for part in pair_grid(CELL, points).split(4096)])
    return torch.logsumexp(-energy / KT, 0).item() - 3 * math.log(points) + 6 * math.log(CELL.length)


def random_schnet() -> SchNetPotential:
    """A small SchNet with random parameters, strong enough to bind the protons to a shell of distances."""
    torch.manual_seed(7)
    schnet = SchNetPotential(num_features=8, num_interactions=2, num_radial=8, energy_per_atom=-0.5, energy_scale=0.1)
    return schnet.requires_grad_(False)


@pytest.mark.parametrize("kind", ["yukawa", "schnet"])
def test_two_protons_agree_with_quadrature(kind: str) -> None:
    """Within 2.5 errors, of 0.04 kT at most; for SchNet by the path ideal gas -> Yukawa -> SchNet."""
    yukawa = YukawaPotential(strength=1.0, screening_length=0.7, cutoff=4.0)
    path: list[Potential] = [yukawa] if kind == "yukawa" else [yukawa, random_schnet()]
    with torch.no_grad():
        exact, coarser = (exact_log_z(path[-1], points) for points in (26, 20))
        uniform = path[-1].energy(CELL.length * torch.rand(2000, 2, 3), CELL)
    assert abs(exact - coarser) < 2e-3
    assert uniform.quantile(0.5) - uniform.min() > 2 * KT, "the potential should matter"
    settings = LogZSettings(num_chains=12, num_sweeps=150, max_sweeps=400, target_error_per_atom=0.02, seed=3)
    energies = [lambda z, each=each: each.energy(z, CELL) for each in path]
    found = integrate(energies, CELL, KT, settings)
    print(f"ln Z = {found.log_z:.4f} +- {found.log_z_error:.4f}, exact {exact:.4f}")
    assert found.converged, found.reasons
    assert found.log_z_error < 0.04
    assert abs(found.log_z - exact) < 2.5 * found.log_z_error


def mean_energy(cell: PeriodicCell, kT: float, positions: Tensor, seed: int) -> tuple[float, float]:
    """<E>/kT of the plasma and its error, by one chain per configuration."""
    ewald, rule = Ewald(cell, 1e-5), LangevinProposal()
    width, series = torch.tensor(0.25), []
    random = WalkerRandom(range(1), seed=seed)

    def log_prob(z: Tensor) -> Tensor:
        return -ewald.proton_energy(z) / kT

    for sweep in range(50):
        state = rule.evaluate(log_prob, positions)
        state, _ = metropolis(log_prob, state, rule, width, 4, random, cell.wrap)
        positions = state.positions
        if sweep >= 10:
            series.append(-state.log_prob)
    found = estimate(torch.stack(series))
    return found.value, found.error


def test_plasma_agrees_with_the_energy_integrated_over_the_coupling() -> None:
    """ln Z(Gamma = 3) - ln Z(Gamma = 1) = -int <E>/kT d ln Gamma at N = 4, within 3 errors: chains of their own at the
    nodes of Gauss and Legendre, no reweighting.
    """
    cell = PeriodicCell(4, 1.0)
    ewald = Ewald(cell, 1e-5)
    settings = LogZSettings(num_chains=16, num_sweeps=100, max_sweeps=100, pilot_sweeps=25, target_error_per_atom=1)
    low, high = (integrate([ewald.proton_energy], cell, 1.0 / gamma, settings) for gamma in (1.0, 3.0))
    nodes, weights = np.polynomial.legendre.leggauss(3)
    total, variance = 0.0, low.log_z_error**2 + high.log_z_error**2
    for number, (node, weight) in enumerate(zip(nodes, weights, strict=True)):
        log_gamma = 0.5 * math.log(3.0) * (1.0 + node)
        assert high.positions is not None
        start = high.positions.repeat(2, 1, 1)
        value, error = mean_energy(cell, math.exp(-log_gamma), start, seed=50 + number)
        total -= 0.5 * math.log(3.0) * weight * value
        variance += (0.5 * math.log(3.0) * weight * error) ** 2
    difference = high.log_z - low.log_z - total
    print(f"difference {difference:.4f} +- {math.sqrt(variance):.4f}")
    assert math.sqrt(variance) < 0.25
    assert abs(difference) < 3 * math.sqrt(variance)
