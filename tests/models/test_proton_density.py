"""ln p(x) = ln p_base(z) + ln|det dz/dx|: its terms, its normalisation and its gradients."""

import math

import pytest
import torch

from lightning_vfe.models.base.uniform import UniformBase
from lightning_vfe.models.flow.equivariant_flow import EquivariantFlow
from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.units import KELVIN_TO_HARTREE
from tests.helpers.flows import cubic_operations, make_flow, random_protons, report


def _density(cell, **settings):
    return ProtonDensity(UniformBase(cell, temperature_kelvin=6000.0), make_flow(cell, **settings))


def test_uniform_base():
    cell = PeriodicCell(5, 1.3)
    base, z = UniformBase(cell, temperature_kelvin=4000.0), random_protons(cell, 2, 3)
    assert torch.equal(base.energy(z), torch.zeros(2, 3))
    torch.testing.assert_close(base.log_prob(z), torch.full((2, 3), -15.0 * math.log(cell.length)))
    assert base.free_energy == pytest.approx(-4000.0 * KELVIN_TO_HARTREE * 15.0 * math.log(cell.length))
    assert base.free_energy_error == 0.0
    with pytest.raises(ValueError, match="system.temperature_kelvin = 0"):
        UniformBase(cell, temperature_kelvin=0.0)


def test_fresh_density_is_the_base():
    cell = PeriodicCell(4, 1.3)
    density = ProtonDensity(UniformBase(cell, 6000.0), EquivariantFlow(cell, num_channels=4))
    x = random_protons(cell, 3)
    assert torch.equal(density.log_prob(x), density.base.log_prob(x))


def test_terms_belong_together():
    cell = PeriodicCell(4, 1.3)
    density, x = _density(cell), random_protons(cell, 2, 3)
    terms = density.evaluate(x)
    assert terms.z.shape == x.shape and terms.sign_det_dzdx.shape == (2, 3)
    torch.testing.assert_close(terms.z, x + density.flow.displacement(x))
    torch.testing.assert_close(terms.log_prob, density.base.log_prob(terms.z) + terms.log_abs_det_dzdx)
    assert torch.equal(terms.base_energy, torch.zeros(2, 3))
    assert torch.equal(density.log_prob(x), terms.log_prob)


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
        terms = density.evaluate(x)
    assert (terms.sign_det_dzdx > 0).all()
    log_ratio = terms.log_prob - density.base.log_prob(x)
    assert log_ratio.std() > 0.3 and log_ratio.min() < -3.0  # far from uniform
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
        error = (density.log_prob(changed) - density.log_prob(x)).abs().max()
    report(record_property, error, 1e-10)


def test_forces_and_scores_against_finite_differences():
    """d ln p / dx, which Langevin moves follow, and d ln p / dphi, which the training needs."""
    cell = PeriodicCell(3, 1.3)
    density, x = _density(cell), random_protons(cell, 2).requires_grad_()
    variables = [x, *density.parameters()]
    gradients = torch.autograd.grad(density.log_prob(x).sum(), variables)
    for variable, gradient in zip(variables, gradients, strict=True):
        direction = torch.randn_like(variable)
        direction *= 1e-5 / direction.norm()
        with torch.no_grad():
            variable += direction
            above = density.log_prob(x).sum()
            variable -= 2.0 * direction
            below = density.log_prob(x).sum()
            variable += direction
        expected, found = (above - below) / 2e-5, (gradient * direction).sum() / 1e-5
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
