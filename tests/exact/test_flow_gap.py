"""The gap of a flow against an exact free energy: two protons of a one-component plasma, seen with noise."""

from __future__ import annotations

import math

import torch

from lightning_vfe.models.base.uniform import UniformBase
from lightning_vfe.models.flow.equivariant_flow import EquivariantFlow
from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.ewald import Ewald
from lightning_vfe.physics.flow_gap import flow_gap
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.statistics import estimate
from lightning_vfe.physics.system import System
from lightning_vfe.physics.units import KELVIN_TO_HARTREE
from lightning_vfe.sampling.metropolis import metropolis
from lightning_vfe.sampling.proposals import GaussianProposal
from lightning_vfe.sampling.random import WalkerRandom
from tests.helpers.plasma import exact_excess_free_energy, plasma_states
from tests.helpers.wavefunctions import trained_like


def test_chains_on_a_flow_find_the_exact_free_energy_below_their_upper_bound() -> None:
    """rs = 1.5, kT = 0.5 Ha: Markov chains on p(x) of a flow that fits the plasma badly, energies with noise.

    F lies above the exact one by more than five errors. The exponential average and the second order agree with it: the
    distribution of A is not normal, and the third order that the second one leaves out is below the errors.
    """
    cell, kT, walkers, sweeps, electrons, noise = PeriodicCell(2, 1.5), 0.5, 128, 80, 4, 0.1
    reference = StatePoint(cell.rs, kT / KELVIN_TO_HARTREE)
    flow = EquivariantFlow(System(2), reference, num_blocks=1, num_steps=1, num_layers=1, num_channels=4)
    density = trained_like(ProtonDensity(UniformBase(System(2)), flow), seed=2, size=0.05)
    states, ewald, rule = plasma_states(cell, kT, walkers), Ewald(cell), GaussianProposal()
    random, generator = WalkerRandom(range(1), seed=5), torch.Generator().manual_seed(6)
    positions, width = cell.length * random.uniform((walkers, 2, 3), dtype=torch.float64), torch.tensor(0.7)

    def log_prob(x: torch.Tensor) -> torch.Tensor:
        return density.log_prob(x, states)

    values, variances = [], []
    with torch.no_grad():
        for sweep in range(sweeps):
            state, _ = metropolis(log_prob, rule.evaluate(log_prob, positions), rule, width, 1, random, cell.wrap)
            positions = state.positions
            if sweep >= 20:
                shape, size = (walkers, electrons), kT * math.sqrt(noise * electrons)
                each = ewald.proton_energy(positions)[:, None] + size * torch.randn(shape, generator=generator)
                values.append((kT * state.log_prob + each.mean(1)) / 2)
                variances.append(each.var(1) / electrons)
    series, spread = torch.stack(values), torch.stack(variances)
    exact = (exact_excess_free_energy(cell, kT) - kT * 6 * math.log(cell.length)) / 2
    upper, found = estimate(series), flow_gap(series, spread, electrons, kT, num_atoms=2)
    assert found.exponential is not None, found.weights_reason
    assert found.cumulant is not None
    assert upper.value - exact > 5 * upper.error
    print(exact, upper, found)
    assert abs(found.exponential.value - exact) < 2.5 * found.exponential.error
    assert abs(found.cumulant.value - exact) < 0.2 * (upper.value - exact)
