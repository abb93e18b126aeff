"""E(y) - E(x) from two sets of samples: exact answers of Gaussians, its variance, and its symmetry."""

from __future__ import annotations

import math

import torch

from lightning_vfe.physics.system import System
from lightning_vfe.sampling.energy_difference import energy_difference, weighted_sum
from lightning_vfe.sampling.symmetric_warp import symmetric_warp

CELL = System(4).cell


def gaussian_case(count: int, samples: int, seed: int = 1, apart: float = 0.8):
    """psi_x^2 = exp(-r^2/2), psi_y^2 = 3 exp(-(r - a)^2 / (2 s^2)), E_x = r^2, E_y = (r - 2)^2 + r."""
    torch.manual_seed(seed)
    scale = 1.3
    x, y = torch.randn(count, samples), apart + scale * torch.randn(count, samples)
    r = torch.stack([x, y], dim=1)
    log_ratio = math.log(3.0) - 0.5 * ((r - apart) / scale).square() + 0.5 * r.square()
    exact = scale**2 + (apart - 2) ** 2 + apart - 1.0
    return log_ratio, r.square(), (r - 2).square() + r, exact


def test_exact_difference_and_error_of_gaussians() -> None:
    """The mean is exact within its error, the estimated variance is that of the scatter within a twentieth."""
    log_ratio, at_x, at_y, exact = gaussian_case(20000, 32)
    found = energy_difference(log_ratio, at_x, at_y)
    error = found.value.std() / len(found.value) ** 0.5
    bias = found.value.mean() - exact
    assert abs(bias) < max(4 * error, 0.05 * found.value.std()), f"bias {bias:.4f}"
    assert abs(found.variance.mean() / found.value.var() - 1) < 0.05
    assert ((found.freedom >= 31) & (found.freedom <= 62 + 1e-9)).all()
    fewer = energy_difference(*gaussian_case(20000, 8, seed=2)[:3])
    assert abs(fewer.value.mean() - exact) < 0.1 * fewer.value.std(), "the bias is far below the noise"


def test_samples_at_both_places_help() -> None:
    """The noise is below that of two independent averages."""
    log_ratio, at_x, at_y, _ = gaussian_case(4000, 32, apart=0.2)
    found = energy_difference(log_ratio, at_x, at_y)
    apart = at_y[:, 1].mean(-1) - at_x[:, 0].mean(-1)
    assert found.value.var() < 0.8 * apart.var()


def test_changing_places_changes_the_sign() -> None:
    log_ratio, at_x, at_y, _ = gaussian_case(50, 8)
    there = energy_difference(log_ratio, at_x, at_y)
    back = energy_difference(-log_ratio.flip(1), at_y.flip(1), at_x.flip(1))
    torch.testing.assert_close(back.value, -there.value)
    torch.testing.assert_close(back.variance, there.variance)
    torch.testing.assert_close(back.freedom, there.freedom)


def test_equal_wavefunctions_have_no_noise() -> None:
    torch.manual_seed(3)
    energy = torch.randn(5, 2, 8)
    found = energy_difference(torch.full((5, 2, 8), -4.0), energy, energy + 2.0)
    torch.testing.assert_close(found.value, torch.full((5,), 2.0))
    assert found.variance.max() < 1e-20


def test_twists_are_weighted() -> None:
    each = energy_difference(*gaussian_case(3, 8)[:3])
    total = weighted_sum(each, torch.tensor([0.5, 0.3, 0.2]))
    torch.testing.assert_close(total.value, 0.5 * each.value[0] + 0.3 * each.value[1] + 0.2 * each.value[2])
    expected = 0.25 * each.variance[0] + 0.09 * each.variance[1] + 0.04 * each.variance[2]
    torch.testing.assert_close(total.variance, expected)
    assert each.freedom.min() <= total.freedom <= each.freedom.sum()


def warp_case():
    torch.manual_seed(4)
    protons, electrons = torch.rand(3, 4, 3) * CELL.length, torch.rand(3, 6, 4, 3) * CELL.length
    return electrons, protons, 0.08 * torch.randn(3, 4, 3)


def test_the_warp_back_is_the_inverse() -> None:
    electrons, protons, displacement = warp_case()
    there = symmetric_warp(CELL, electrons, protons, displacement)
    back = symmetric_warp(CELL, there.positions, protons + displacement, -displacement)
    assert there.found.all()
    assert torch.equal(there.found, back.found)
    torch.testing.assert_close(back.positions, electrons, rtol=0, atol=1e-9)
    torch.testing.assert_close(back.log_jacobian, -there.log_jacobian, rtol=0, atol=1e-8)
    assert there.log_jacobian.abs().max() > 0.05


def test_the_jacobian_is_that_of_the_map() -> None:
    electrons, protons, displacement = warp_case()
    one = electrons[:1, :1]

    def warp(positions: torch.Tensor) -> torch.Tensor:
        return symmetric_warp(CELL, positions.view_as(one), protons[:1], displacement[:1]).positions.flatten()

    flat, step = one.flatten(), 1e-5
    columns = [(warp(flat + step * e) - warp(flat - step * e)) / (2 * step) for e in torch.eye(12)]
    expected = torch.linalg.slogdet(torch.stack(columns, dim=1))[1]
    found = symmetric_warp(CELL, one, protons[:1], displacement[:1]).log_jacobian[0, 0]
    assert abs(found - expected) < 1e-7


def test_electrons_on_protons_follow_them_across_the_face() -> None:
    _, protons, displacement = warp_case()
    moved = symmetric_warp(CELL, protons[:, None] + CELL.length, protons, displacement)
    torch.testing.assert_close(moved.positions, protons[:, None] + CELL.length + displacement[:, None])


def test_folds_are_told() -> None:
    """Two protons that pass each other: no map carries all electrons between them."""
    protons = torch.tensor([[[1.0, 1.0, 1.0], [1.4, 1.0, 1.0], [3.0, 3.0, 3.0], [2.0, 4.0, 1.0]]])
    displacement = torch.zeros(1, 4, 3)
    displacement[0, :2, 0] = torch.tensor([0.5, -0.5])
    between = torch.tensor([1.2, 1.0, 1.0]).expand(1, 1, 4, 3)
    assert not symmetric_warp(CELL, between, protons, displacement).found.any()
