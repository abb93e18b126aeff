"""g(r) of cases with a known answer."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.observables import PAIRS, RadialDistributions, ball_in_cube_volume

CELL = PeriodicCell(num_atoms=4, rs=1.5)


def test_volume_of_a_ball_in_a_cube():
    def slice_area(x, radius):
        """Area of the disc of squared radius R^2 - x^2 in the unit square, by integrating its chords."""
        squared = radius**2 - x**2
        if squared <= 0:
            return 0.0
        chord = lambda y: 2 * min(0.5, math.sqrt(max(squared - y * y, 0.0)))  # noqa: E731
        kink = math.sqrt(max(squared - 0.25, 0.0))
        return 2 * integrate.quad(chord, 0, min(0.5, math.sqrt(squared)), points=[kink] if 0 < kink < 0.5 else None)[0]

    for radius in (0.2, 0.5, 0.55, 0.65, 0.707, 0.7072, 0.75, 0.82, 0.86):
        upper = min(0.5, radius)
        kink = math.sqrt(max(radius**2 - 0.5, 0.0))
        exact = 2 * integrate.quad(slice_area, 0, upper, args=(radius,), points=[kink] if kink else None, limit=200)[0]
        assert ball_in_cube_volume(radius) == pytest.approx(exact, abs=2e-7), radius
    for edge in (0.5, math.sqrt(0.5), math.sqrt(0.75)):  # the pieces join
        step = ball_in_cube_volume(edge + 1e-9) - ball_in_cube_volume(edge - 1e-9)
        assert abs(step) < 1e-8
    assert ball_in_cube_volume(0.9) == 1.0


@pytest.mark.parametrize("r_max", [None, math.sqrt(3) / 2 * CELL.length])
def test_ideal_gas_has_g_of_one(r_max):
    g = RadialDistributions(CELL, num_bins=20, r_max=r_max)
    for _ in range(60):
        g.update(torch.rand(200, 4, 3) * CELL.length, torch.rand(200, 3, 4, 3) * CELL.length)
    result = g.result()
    assert set(result) == set(PAIRS)
    for name, distribution in result.items():
        pull = (distribution.g - 1) / distribution.error
        used = distribution.error > 0
        assert used.sum() >= 18
        assert np.abs(pull[used]).max() < 4, f"{name}: {pull}"
        assert 0.4 < np.mean(pull[used] ** 2) < 2.0, f"{name}: the errors are wrong, {pull}"


def test_all_pairs_are_counted_once():
    """The integral of g over the whole cell is 1, whatever the structure."""
    g = RadialDistributions(CELL, num_bins=30, r_max=math.sqrt(3) / 2 * CELL.length)
    g.update(torch.randn(50, 4, 3), torch.randn(50, 2, 4, 3) * 0.3)
    volumes = np.diff([ball_in_cube_volume(edge / CELL.length) for edge in g.edges])
    for name, distribution in g.result().items():
        assert np.sum(distribution.g * volumes) == pytest.approx(1.0, abs=1e-12), name


def test_pairs_fall_into_the_right_bins_and_kinds():
    """Protons 1.0 apart across the boundary; electrons: like spins 0.5 apart, unlike ones 1.5 or 2.0 apart along x."""
    cell = PeriodicCell(num_atoms=4, rs=4.0)
    protons = torch.zeros(2, 4, 3)
    protons[:, :, 0] = torch.tensor([0.0, 1.0, 2.0, 3.0]) - 1.02
    electrons = torch.zeros(2, 1, 4, 3)
    electrons[..., 0] = torch.tensor([0.01, 0.51, 2.02, 2.53])  # up, up, down, down
    g = RadialDistributions(cell, num_bins=50, r_max=5.0)
    g.update(cell.wrap(protons), cell.wrap(electrons + 40 * cell.length))
    counts = {name: np.flatnonzero(distribution.g).tolist() for name, distribution in g.result().items()}
    expected = {
        "proton_proton": [9, 10, 19, 20, 29, 30],
        "electron_electron_like": [5],
        "electron_electron_unlike": [15, 20, 25],
    }
    assert counts["electron_electron_like"] == expected["electron_electron_like"]
    assert counts["electron_electron_unlike"] == expected["electron_electron_unlike"]
    # 1.0, 2.0 and 3.0 lie on edges: rounding decides which of the two bins.
    assert set(counts["proton_proton"]) <= set(expected["proton_proton"])
    assert len(counts["proton_proton"]) >= 3
    like = g.result()["electron_electron_like"]
    shell = 4 / 3 * math.pi * (0.6**3 - 0.5**3) / cell.volume
    assert like.g[5] == pytest.approx(1 / shell)
    assert like.r[5] == pytest.approx(0.55)
    assert like.error[5] == 0


def test_missing_kinds_and_errors():
    small = PeriodicCell(num_atoms=2, rs=2.0)
    g = RadialDistributions(small)
    with pytest.raises(ValueError, match="no samples yet"):
        g.result()
    g.update(torch.rand(1, 2, 3), torch.rand(1, 3, 2, 3))
    assert set(g.result()) == set(PAIRS) - {"electron_electron_like"}
    assert np.isnan(g.result()["proton_proton"].error).all()
    only_protons = RadialDistributions(small)
    only_protons.update(torch.rand(3, 2, 3))
    assert set(only_protons.result()) == {"proton_proton"}
    with pytest.raises(ValueError, match="num_bins = 0"):
        RadialDistributions(small, num_bins=0)
    with pytest.raises(ValueError, match="corner of the cell"):
        RadialDistributions(small, r_max=small.length)


def test_weights_units_and_spins():
    """In units of rs, g is the same and r is given in bohr; walkers have weights; num_up parts the spins."""
    system_cell, rs = PeriodicCell(num_atoms=4, rs=1.0), 1.5
    bohr, reduced = RadialDistributions(CELL), RadialDistributions(system_cell)
    protons, electrons = torch.rand(6, 4, 3), torch.rand(6, 2, 4, 3)
    bohr.update(protons * CELL.length, electrons * CELL.length)
    reduced.update(protons * system_cell.length, electrons * system_cell.length)
    for name, distribution in reduced.result(unit=rs).items():
        np.testing.assert_allclose(distribution.r, bohr.result()[name].r, rtol=1e-14)
        np.testing.assert_allclose(distribution.g, bohr.result()[name].g, rtol=1e-12)
    weights = torch.tensor([3.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    per_walker = bohr.per_walker()["proton_electron"].numpy()
    weighted = bohr.result(weights=weights)["proton_electron"]
    np.testing.assert_allclose(weighted.g, 0.75 * per_walker[0] + 0.25 * per_walker[1], rtol=1e-13)
    equal = bohr.result(weights=torch.full((6,), 0.2))
    for name, distribution in bohr.result().items():
        np.testing.assert_allclose(equal[name].g, distribution.g, rtol=1e-13)
        np.testing.assert_allclose(equal[name].error, distribution.error, rtol=1e-13)
    polarised = RadialDistributions(CELL, num_up=4)
    polarised.update(protons * CELL.length, electrons * CELL.length)
    assert set(polarised.result()) == set(PAIRS) - {"electron_electron_unlike"}


def test_walkers_of_two_processes_join():
    parts, whole = [RadialDistributions(CELL) for _ in range(2)], RadialDistributions(CELL)
    for _ in range(3):
        protons, electrons = torch.rand(6, 4, 3) * CELL.length, torch.rand(6, 2, 4, 3) * CELL.length
        whole.update(protons, electrons)
        parts[0].update(protons[:2], electrons[:2])
        parts[1].update(protons[2:], electrons[2:])
    joined = {name: torch.cat([part.per_walker()[name] for part in parts]) for name in PAIRS}
    for name, distribution in whole.result().items():
        np.testing.assert_array_equal(distribution.g, parts[0].result(joined)[name].g)
        np.testing.assert_array_equal(distribution.error, parts[0].result(joined)[name].error)
