"""A flow on a classical target whose free energy is known exactly: two protons of a one-component plasma."""

from __future__ import annotations

import math

import torch

from lightning_vfe.models.base.uniform import UniformBase
from lightning_vfe.models.flow.equivariant_flow import EquivariantFlow
from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.ewald import Ewald
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.statistics import estimate
from lightning_vfe.physics.system import System
from lightning_vfe.physics.units import KELVIN_TO_HARTREE
from lightning_vfe.sampling.metropolis import metropolis
from lightning_vfe.sampling.proposals import GaussianProposal
from lightning_vfe.sampling.random import WalkerRandom
from tests.helpers.plasma import exact_excess_free_energy, pair_grid, plasma_states, thermodynamic_integration, train


def fresh_density(cell: PeriodicCell, kT: float) -> ProtonDensity:
    system, reference = System(cell.num_atoms), StatePoint(cell.rs, kT / KELVIN_TO_HARTREE)
    flow = EquivariantFlow(system, reference, num_blocks=1, num_steps=1, num_layers=1, num_channels=8)
    return ProtonDensity(UniformBase(system), flow)


def test_two_protons_reach_the_exact_free_energy() -> None:
    """rs = 1, kT = 1 Ha (Gamma = 1): F never below the exact one, and within 0.003 kT per particle of it.

    F of the trained density is integrated on the grid of relative vectors, so that there is no statistical error.
    """
    cell, kT = PeriodicCell(2, 1.0), 1.0
    density = fresh_density(cell, kT)
    exact = exact_excess_free_energy(cell, kT)
    assert abs(exact - exact_excess_free_energy(cell, kT, points=32)) < 1e-4
    train(density, cell, kT, steps=150, walkers=256, rate=1e-2)

    pairs = pair_grid(cell, 24)
    with torch.no_grad():
        terms = density.evaluate(pairs, plasma_states(cell, kT, len(pairs)))
    assert (terms.sign_det_dzdx > 0).all()
    # Relative to the ideal gas: ln p + N ln L^3, a density of the relative vector with mean 1 over the grid.
    log_ratio = terms.log_prob + 6 * math.log(cell.length)
    weight = torch.exp(log_ratio) / len(pairs)
    assert abs(weight.sum().item() - 1) < 1e-3, f"norm of p(x) {weight.sum().item():.5f}"
    energy = Ewald(cell).proton_energy(pairs)
    free_energy = (weight * (kT * log_ratio + energy)).sum().item()
    uniform = energy.mean().item()
    gap = (free_energy - exact) / (2 * kT)
    print(f"uniform {uniform / 2:.5f}, flow {free_energy / 2:.5f}, exact {exact / 2:.5f} Ha per particle")
    assert -2e-4 < gap < 3e-3, f"F lies {gap:.5f} kT per particle above the exact one"


def test_thermodynamic_integration_finds_the_exact_free_energy() -> None:
    """The reference of the next test, on two protons, within 4 errors."""
    cell, kT = PeriodicCell(2, 1.0), 1.0
    value, error = thermodynamic_integration(cell, kT, walkers=256, sweeps=60)
    assert abs(value - exact_excess_free_energy(cell, kT)) < 4 * error


def test_eight_protons_go_most_of_the_way_from_the_uniform_density() -> None:
    """rs = 1, kT = 1 Ha: the free energy to be gained over the uniform density, <E>_uniform - F, is measured by
    thermodynamic integration; a short training gains most of it, and never more.
    """
    cell, kT = PeriodicCell(8, 1.0), 1.0
    exact, exact_error = thermodynamic_integration(cell, kT, walkers=128, sweeps=80)
    density = fresh_density(cell, kT)
    positions = train(density, cell, kT, steps=40, walkers=64, rate=1e-2)

    ewald, rule, random = Ewald(cell), GaussianProposal(), WalkerRandom(range(1), seed=5)
    uniform = ewald.proton_energy(cell.length * torch.rand(20000, 8, 3))
    series, states = [], plasma_states(cell, kT, len(positions))

    def log_prob(x: torch.Tensor) -> torch.Tensor:
        return density.log_prob(x, states)

    with torch.no_grad():
        for _ in range(40):
            state = rule.evaluate(log_prob, positions)
            state, _ = metropolis(log_prob, state, rule, torch.tensor(0.1 * cell.length), 3, random, cell.wrap)
            positions = state.positions
            terms = density.evaluate(positions, states)
            assert (terms.sign_det_dzdx > 0).all()
            series.append(kT * terms.log_abs_det_dzdx + ewald.proton_energy(positions))
    trained = estimate(torch.stack(series))
    error = math.hypot(trained.error, exact_error)
    gain = (uniform.mean().item() - trained.value) / (uniform.mean().item() - exact)
    print(f"uniform {uniform.mean() / 8:.4f}, flow {trained.value / 8:.4f}({trained.error / 8:.4f}), ", end="")
    print(f"exact {exact / 8:.4f}({exact_error / 8:.4f}) Ha per particle; gained {gain:.2f}")
    assert trained.value > exact - 4 * error
    assert gain > 0.7, f"gained {gain:.2f} of what there is to gain"
