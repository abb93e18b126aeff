"""ln p(x) = ln p_base(z) + ln|det dz/dx|: its terms, its normalisation and its gradients."""

import dataclasses
import math

import pytest
import torch

from lightning_vfe.models.base.uniform import UniformBase
from lightning_vfe.models.flow.equivariant_flow import EquivariantFlow
from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.system import System
from lightning_vfe.physics.units import KELVIN_TO_HARTREE
from lightning_vfe.sampling.random import WalkerRandom
from tests.helpers.flows import cubic_operations, make_flow, random_protons, report
from tests.helpers.states import states_at


def _density(cell, **settings):
    return ProtonDensity(UniformBase(System(cell.num_atoms)), make_flow(cell, **settings))


def test_uniform_base():
    cell = PeriodicCell(5, 1.3)
    base, z, states = UniformBase(System(5)), random_protons(cell, 2, 3), states_at(cell, 2, 3, kelvin=4000.0)
    assert torch.equal(base.energy(z, states), torch.zeros(2, 3))
    torch.testing.assert_close(base.log_prob(z, states), torch.full((2, 3), -15.0 * math.log(cell.length)))
    expected = -4000.0 * KELVIN_TO_HARTREE * 15.0 * math.log(cell.length)
    torch.testing.assert_close(base.free_energy(states), torch.full((2, 3), expected))
    assert torch.equal(base.free_energy_error(states), torch.zeros(2, 3))


def test_draws_of_the_uniform_base_fill_the_cell_of_each_walker():
    cells = PeriodicCell(5, 1.3), PeriodicCell(5, 2.0)
    rs = torch.tensor([cell.rs for cell in cells]).repeat(300)
    states = dataclasses.replace(states_at(cells[0], 600), rs=rs)
    z = UniformBase(System(5)).sample(states, WalkerRandom(range(2), seed=1))
    assert z.shape == (600, 5, 3)
    assert (z >= 0).all()
    for walkers, cell in zip((z[::2], z[1::2]), cells, strict=True):
        assert walkers.max() < cell.length
        error = 4.0 / math.sqrt(walkers.numel())  # of fractions in units of the standard deviation
        fractions = walkers / cell.length
        assert abs(fractions.mean() - 0.5) < error * math.sqrt(1 / 12)
        assert abs(fractions.var() - 1 / 12) < error / 12


def test_fresh_density_is_the_base():
    cell = PeriodicCell(4, 1.3)
    flow = EquivariantFlow(System(4), StatePoint(1.2, 5000.0), num_channels=4)
    density = ProtonDensity(UniformBase(System(4)), flow)
    x, states = random_protons(cell, 3), states_at(cell, 3)
    assert torch.equal(density.log_prob(x, states), density.base.log_prob(x, states))


def test_terms_belong_together():
    cell = PeriodicCell(4, 1.3)
    density, x, states = _density(cell), random_protons(cell, 2, 3), states_at(cell, 2, 3)
    terms = density.evaluate(x, states)
    assert terms.z.shape == x.shape
    assert terms.sign_det_dzdx.shape == (2, 3)
    torch.testing.assert_close(terms.z, x + density.flow.displacement(x, states))
    torch.testing.assert_close(terms.log_prob, density.base.log_prob(terms.z, states) + terms.log_abs_det_dzdx)
    assert torch.equal(terms.base_energy, torch.zeros(2, 3))
    assert torch.equal(density.log_prob(x, states), terms.log_prob)


@pytest.mark.parametrize("settings", [{"strength": 1.5}, {"strength": 1.0, "num_layers": 1, "hidden_lmax": 2}])
def test_normalisation_for_two_protons(settings):
    """int p(x) dx = 1. For N = 2, p depends on the relative vector d only: L^3 int p(d) d^3d, on a periodic grid."""
    cell = PeriodicCell(2, 1.5)
    density, points = _density(cell, **settings), 16
    axis = (torch.arange(points) + 0.5) / points * cell.length
    # Half of the cell is enough, by inversion; the other tests check that symmetry.
    vectors = torch.cartesian_prod(axis[: points // 2], axis, axis)
    x = torch.stack([torch.zeros_like(vectors), vectors], dim=-2)
    with torch.no_grad():
        states = states_at(cell, len(x))
        terms = density.evaluate(x, states)
    assert (terms.sign_det_dzdx > 0).all()
    log_ratio = terms.log_prob - density.base.log_prob(x, states)
    assert log_ratio.std() > 0.3
    assert log_ratio.min() < -3.0
    integral = cell.length**6 * terms.log_prob.exp().mean()
    print(f"integral {integral:.6f}, ln p / p_uniform from {log_ratio.min():.1f} to {log_ratio.max():.2f}")
    assert integral == pytest.approx(1.0, abs=1e-3)


def test_log_prob_is_invariant(record_property):
    cell = PeriodicCell(4, 1.3)
    density, x = _density(cell), random_protons(cell, 2)
    shift = torch.zeros_like(x)
    shift[0, 1, 2], shift[1, 3] = -2.0 * cell.length, cell.length
    changed = torch.stack(
        [
            *(x @ operation.T for operation in cubic_operations()),
            x[:, [2, 0, 3, 1]],
            x + torch.tensor([0.4, -3.0, 11.0]),
            x + shift,
        ]
    )
    with torch.no_grad():
        error = (density.log_prob(changed, states_at(cell)) - density.log_prob(x, states_at(cell))).abs().max()
    report(record_property, error, 1e-10)


def test_forces_and_scores_against_finite_differences():
    """d ln p / dx, which Langevin moves follow, and d ln p / dphi, which the training needs."""
    cell = PeriodicCell(3, 1.3)
    density, x, states = _density(cell), random_protons(cell, 2).requires_grad_(), states_at(cell, 2)
    variables = [x, *density.parameters()]
    gradients = torch.autograd.grad(density.log_prob(x, states).sum(), variables)
    for variable, gradient in zip(variables, gradients, strict=True):
        direction = torch.randn_like(variable)
        direction *= 1e-5 / direction.norm()
        with torch.no_grad():
            variable += direction
            above = density.log_prob(x, states).sum()
            variable -= 2.0 * direction
            below = density.log_prob(x, states).sum()
            variable += direction
        expected, found = (above - below) / 2e-5, (gradient * direction).sum() / 1e-5
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
