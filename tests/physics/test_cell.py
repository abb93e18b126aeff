"""The periodic cell: lengths, images, smooth functions of displacements, plane waves, and bad input."""

import math
from itertools import product

import pytest
import torch

from lightning_vfe.physics import units
from lightning_vfe.physics.cell import PeriodicCell, periodic_waves, smooth_distance


def test_units_agree_with_the_stated_values():
    assert abs(units.HARTREE_PER_BOHR3_TO_GPA - 29421.0) < 0.1
    assert abs(1.0 / units.KELVIN_TO_HARTREE - 315775.02) < 0.01
    assert abs(units.HARTREE_TO_EV - 27.211386) < 1e-6
    assert abs(units.BOHR_TO_ANGSTROM - 0.529177211) < 1e-9
    assert units.PROTON_MASS == 1836.15


def test_length_follows_from_rs():
    cell = PeriodicCell(14, 1.31)
    assert cell.length == pytest.approx(5.089520218630015, abs=1e-14)  # reference/ewald.json
    assert cell.volume == pytest.approx(cell.length**3, rel=1e-14)
    assert cell.num_atoms / cell.volume * 4.0 * math.pi / 3.0 * cell.rs**3 == pytest.approx(1.0, rel=1e-14)


@pytest.mark.parametrize("num_atoms", [0, -2, 2.5, True, "14"])
def test_num_atoms_must_be_a_positive_integer(num_atoms):
    with pytest.raises(ValueError, match=r"^num_atoms = .* must be a positive integer"):
        PeriodicCell(num_atoms, 1.25)


@pytest.mark.parametrize("rs", [0.0, -1.0, math.nan, math.inf, "1.25", None])
def test_rs_must_be_positive(rs):
    with pytest.raises(ValueError, match=r"^rs = .* must be positive"):
        PeriodicCell(14, rs)


def test_wrap_stays_in_the_half_open_interval():
    cell = PeriodicCell(14, 1.31)
    length = torch.tensor(cell.length)
    edges = torch.stack([length, -length, torch.nextafter(length, length * 0), torch.tensor(-1e-20), 3 * length])
    positions = torch.cat([20.0 * cell.length * (torch.rand(1000) - 0.5), edges])
    wrapped = cell.wrap(positions)
    assert (wrapped >= 0).all()
    assert (wrapped < cell.length).all()
    shifts = (positions - wrapped) / cell.length
    assert (shifts - shifts.round()).abs().max() < 1e-14


def test_minimum_image_is_the_shortest():
    cell = PeriodicCell(8, 1.0)
    displacement = 5.0 * cell.length * (torch.rand(500, 3) - 0.5)
    shortest = cell.minimum_image(displacement)
    around = torch.tensor(list(product((-1.0, 0.0, 1.0), repeat=3))) * cell.length
    candidates = (shortest.unsqueeze(1) + around).norm(dim=-1)
    assert (candidates.amin(dim=1) >= shortest.norm(dim=-1) - 1e-12).all()
    assert shortest.abs().max() <= cell.length / 2


@pytest.mark.parametrize("cutoff_over_length", [0.2, 0.5, 0.8, 1.0, 1.7])
def test_image_shifts_miss_no_image_within_the_cutoff(cutoff_over_length):
    cell = PeriodicCell(4, 1.5)
    cutoff = cutoff_over_length * cell.length
    shifts = cell.image_shifts(cutoff)
    assert (shifts[0] == 0).all()
    every = torch.tensor(list(product(range(-3, 4), repeat=3))).double() * cell.length
    # Corners, edges and faces of the cube of minimum images are the displacements nearest to other images.
    special = torch.tensor(list(product((-0.5, 0.0, 0.5), repeat=3)))
    displacement = torch.cat([special, torch.rand(2000, 3) - 0.5]) * cell.length

    def count(images):
        return ((displacement.unsqueeze(1) + images).norm(dim=-1) < cutoff * (1.0 - 1e-12)).sum()

    assert count(shifts) == count(every)
    reached = ((displacement.unsqueeze(1) + shifts).norm(dim=-1) <= cutoff * (1.0 + 1e-9)).any(dim=0)
    assert reached[1:].all(), "some translation is never needed"


def test_image_shifts_follow_the_wanted_type_and_refuse_a_bad_cutoff():
    cell = PeriodicCell(4, 1.5)
    assert cell.image_shifts(3.0, dtype=torch.float32).dtype == torch.float32
    assert cell.image_shifts(3.0).dtype == torch.float64
    with pytest.raises(ValueError, match=r"^cutoff = 0.0 must be positive"):
        cell.image_shifts(0.0)


def test_smooth_distance():
    cell = PeriodicCell(14, 1.31)
    direction = torch.nn.functional.normalize(torch.randn(20, 3), dim=-1)
    near = 1e-4 * direction
    assert (cell.smooth_distance(near) / near.norm(dim=-1) - 1.0).abs().max() < 1e-8
    displacement = cell.length * torch.rand(20, 3)
    shifted = displacement + cell.length * torch.tensor([3.0, -1.0, 2.0])
    assert (cell.smooth_distance(displacement) - cell.smooth_distance(shifted)).abs().max() < 1e-13
    expected = cell.length / math.pi * (math.pi * displacement / cell.length).sin().norm(dim=-1)
    assert (cell.smooth_distance(displacement) - expected).abs().max() < 1e-13


def test_smooth_distance_has_finite_derivatives_at_a_masked_self_pair():
    cell = PeriodicCell(3, 1.0)
    positions = (cell.length * torch.rand(2, 3, 3)).requires_grad_()
    distance = cell.smooth_distance(positions.unsqueeze(-2) - positions.unsqueeze(-3))
    off_diagonal = 1.0 - torch.eye(3)
    (gradient,) = torch.autograd.grad((distance * off_diagonal).square().sum(), positions, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), positions)
    assert gradient.isfinite().all()
    assert second.isfinite().all()
    value, tangent = torch.func.jvp(cell.smooth_distance, (torch.zeros(3),), (torch.ones(3),))
    assert value == 0.0
    assert tangent == 0.0


def test_periodic_waves_are_sines_and_cosines():
    cell = PeriodicCell(8, 1.25)
    displacement = cell.length * torch.rand(4, 5, 3)
    waves = periodic_waves(displacement, cell.length)
    angle = 2.0 * math.pi * displacement / cell.length
    again = periodic_waves(displacement - 2.0 * cell.length, cell.length)
    for wave, expected, shifted in zip(waves, (angle.sin(), angle.cos()), again, strict=True):
        assert wave.shape == (4, 5, 3)
        assert (wave - expected).abs().max() < 1e-14
        assert (shifted - wave).abs().max() < 1e-13


def test_every_walker_has_its_length():
    """Lengths as a tensor broadcast with the leading dimensions: each cell gives its own distances and waves."""
    cells = [PeriodicCell(8, rs) for rs in (1.1, 1.25, 2.0)]
    displacement = 3.0 * torch.randn(3, 4, 3)
    length = torch.tensor([cell.length for cell in cells]).unsqueeze(1)
    distances, waves = smooth_distance(displacement, length), periodic_waves(displacement, length)
    for w, cell in enumerate(cells):
        torch.testing.assert_close(distances[w], cell.smooth_distance(displacement[w]), rtol=1e-14, atol=1e-14)
        for wave, expected in zip(waves, periodic_waves(displacement[w], cell.length), strict=True):
            torch.testing.assert_close(wave[w], expected, rtol=1e-14, atol=1e-14)


def test_plane_waves_are_whole_shells_in_order():
    cell = PeriodicCell(14, 1.31)
    sizes = [len(cell.plane_waves(count)) for count in (1, 2, 7, 8, 19, 20, 27, 33, 34, 57, 58)]
    assert sizes == [1, 7, 7, 19, 19, 27, 27, 33, 57, 57, 81]
    waves = cell.plane_waves(100)
    squared = waves.square().sum(dim=-1)
    assert waves.dtype == torch.int64
    assert (squared.diff() >= 0).all()
    assert (waves[0] == 0).all()
    assert len({tuple(wave) for wave in waves.tolist()}) == len(waves)
    assert torch.equal(waves, PeriodicCell(2, 4.0).plane_waves(100))
    with pytest.raises(ValueError, match=r"^count = 0"):
        cell.plane_waves(0)
