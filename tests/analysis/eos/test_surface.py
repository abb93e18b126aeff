"""F(V, T): derivatives of the surface, the fit of an equation of state that is known, its tests and its errors."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from lightning_vfe.analysis.eos.agreement import consistency, leave_one_out, suspicious
from lightning_vfe.analysis.eos.fit import fit_surface
from lightning_vfe.analysis.eos.points import Point, collect
from lightning_vfe.analysis.eos.surface import Basis, Surface, Terms, kelvin_to_kT, rs_of_volume, volume_per_atom
from lightning_vfe.analysis.eos.tables import remarks, state_table
from lightning_vfe.analysis.run import RunFolder
from lightning_vfe.analysis.states import State
from lightning_vfe.errors import SettingError
from lightning_vfe.physics.units import HARTREE_PER_BOHR3_TO_GPA, PROTON_MASS
from tests.helpers.states_of_gas import exact, write_gas

RS, KELVINS = [1.8, 1.9, 2.0, 2.1], [5000.0, 6000.0, 7000.0]


def points_of(folder: Path, **settings: object) -> list[Point]:
    return collect([RunFolder(write_gas(folder, RS, KELVINS, **settings))])  # type: ignore[arg-type]


def some_surface() -> Surface:
    """Of all powers and functions of T, with made-up coefficients."""
    terms = Terms(4, 5)
    random = np.random.default_rng(3)
    basis = Basis(8, PROTON_MASS, 33.0, float(kelvin_to_kT(6000.0)), terms)
    return Surface(basis, 0.01 * random.normal(size=terms.num_terms), np.zeros((terms.num_terms, terms.num_terms)))


def test_derivatives_are_those_of_differences() -> None:
    surface, v, kT, h, d = some_surface(), np.array([28.0, 36.0]), np.array([0.017, 0.023]), 1e-3, 1e-6
    f = surface.free_energy
    by_volume = (f(v + h, kT) - f(v - h, kT)) / (2 * h)
    by_kT = (f(v, kT + d) - f(v, kT - d)) / (2 * d)
    np.testing.assert_allclose(surface.pressure(v, kT), -by_volume, rtol=1e-6)
    np.testing.assert_allclose(surface.entropy(v, kT), -by_kT, rtol=1e-6)
    np.testing.assert_allclose(surface.energy(v, kT), f(v, kT) - kT * by_kT, rtol=1e-6)
    capacity = (surface.energy(v, kT + d) - surface.energy(v, kT - d)) / (2 * d)
    np.testing.assert_allclose(surface.heat_capacity(v, kT), capacity, rtol=1e-6)


def test_sound_speed_and_isentropes_of_the_ideal_gas() -> None:
    """c^2 = 5/3 kT/m, and T V^(2/3) is constant."""
    basis = Basis(8, PROTON_MASS, 33.0, 0.02, Terms(1, 1))
    gas, volume, kT = Surface(basis, np.zeros(1), np.zeros((1, 1))), np.array([20.0, 30.0, 40.0]), np.array(0.02)
    np.testing.assert_allclose(gas.sound_speed(volume, kT), math.sqrt(5 / 3 * 0.02 / (PROTON_MASS + 1)), rtol=1e-12)
    np.testing.assert_allclose(gas.heat_capacity(volume, kT), 1.5)
    entropy = float(gas.entropy(np.array(30.0), kT))
    np.testing.assert_allclose(
        gas.isentrope(entropy, volume, (0.01, 0.04)), 0.02 * (30.0 / volume) ** (2 / 3), rtol=1e-9
    )


def test_unstable_surface_has_no_sound_speed() -> None:
    basis = Basis(8, PROTON_MASS, 33.0, 0.02, Terms(3, 1))
    surface = Surface(basis, np.array([0.0, 0.0, -1.0]), np.zeros((3, 3)))
    assert np.isnan(surface.sound_speed(np.array(33.0), np.array(0.02)))


def test_fit_finds_the_known_equation_of_state(tmp_path: Path) -> None:
    """Without noise only the truncation of the polynomial is left, below the errors."""
    points = points_of(tmp_path / "run")
    fit = fit_surface(points, 8, PROTON_MASS)
    assert fit.chi2 < 2.0
    for rs, kelvin in ((1.85, 5500.0), (2.05, 6500.0)):  # between the states
        place = volume_per_atom(rs), kelvin_to_kT(kelvin)
        free_energy, energy, pressure = exact(8, rs, kelvin)
        assert float(fit.surface.free_energy(*place)) == pytest.approx(free_energy, abs=1e-4)
        assert float(fit.surface.energy(*place)) == pytest.approx(energy, abs=1e-4)
        assert float(fit.surface.pressure(*place)) * HARTREE_PER_BOHR3_TO_GPA == pytest.approx(pressure, abs=0.5)


def test_errors_of_the_surface_are_those_of_its_scatter(tmp_path: Path) -> None:
    """Over many sets of noise: chi^2 per degree of freedom is 1, and deviations are about as large as errors."""
    place, reduced, deviations = (volume_per_atom(1.95), kelvin_to_kT(6200.0)), [], []
    truth = exact(8, 1.95, 6200.0)
    for seed in range(20):
        fit = fit_surface(points_of(tmp_path / str(seed), seed=seed), 8, PROTON_MASS)
        reduced.append(fit.chi2 / fit.dof)
        quantities = [lambda s: s.free_energy(*place), lambda s: s.energy(*place), lambda s: s.pressure(*place)]
        truths = truth / np.array([1.0, 1.0, HARTREE_PER_BOHR3_TO_GPA])
        deviations.append(
            [(q(fit.surface) - t) / fit.surface.error(q) for q, t in zip(quantities, truths, strict=True)]
        )
    assert np.mean(reduced) == pytest.approx(1.0, abs=0.15)
    assert np.sqrt(np.mean(np.square(deviations), axis=0)) == pytest.approx([1.0, 1.0, 1.0], abs=0.5)


def test_more_states_never_take_fewer_terms_than_they_need(tmp_path: Path) -> None:
    few = collect([RunFolder(write_gas(tmp_path / "few", [1.9, 2.0], [6000.0], seed=1))])
    fit = fit_surface(few, 8, PROTON_MASS)
    assert fit.surface.basis.terms.temperature <= 2
    assert fit.dof >= 1
    with pytest.raises(SettingError, match="hold a single state"):
        fit_surface(few[:1], 8, PROTON_MASS)


def test_heat_capacity_that_falls_with_T_takes_products_of_low_order(tmp_path: Path) -> None:
    """Three densities and temperatures: x^3 and t^2 without the products that the states do not determine."""
    assert Terms(4, 4, 5).num_terms == 13
    assert Terms(4, 4).num_terms == 16
    assert [3, 2] not in Terms(4, 4, 5).indices.tolist()
    random, terms = np.random.default_rng(4), Terms(4, 4, 5)
    basis = Basis(8, PROTON_MASS, 33.0, float(kelvin_to_kT(7000.0)), terms)
    low = np.where(terms.indices[:, 1] == 3, 0.02, 0.05)  # the last function of T bends C_V
    truth = Surface(basis, low * random.normal(size=terms.num_terms), np.zeros((terms.num_terms,) * 2))
    errors, points = np.array([1e-4, 1e-4, 1e-6]), []
    for rs in (1.8, 2.0, 2.2):
        for kelvin in (4000.0, 6000.0, 10000.0):
            place = volume_per_atom(rs), kelvin_to_kT(kelvin)
            values = np.array([truth.free_energy(*place), truth.energy(*place), truth.pressure(*place)])
            noisy = values + errors * random.normal(size=3)
            points.append(Point(State(rs, kelvin), noisy, np.diag(errors**2), "run"))
    fit = fit_surface(points, 8, PROTON_MASS)
    assert fit.surface.basis.terms == terms
    assert fit.dof == 14
    assert fit.chi2 < 14 + 3 * math.sqrt(28)
    place = volume_per_atom(1.9), kelvin_to_kT(np.array([4500.0, 9000.0]))
    for quantity in (lambda s: s.pressure(*place), lambda s: s.heat_capacity(*place)):
        assert (np.abs(quantity(fit.surface) - quantity(truth)) < 3.5 * fit.surface.error(quantity)).all()


def test_consistency_is_normal_and_finds_a_wrong_pressure(tmp_path: Path) -> None:
    sigmas = []
    for seed in range(20):
        found = consistency(fit_surface(points_of(tmp_path / str(seed), seed=seed), 8, PROTON_MASS))
        sigmas.append(np.stack([found.pressure, found.entropy]))
    spread = np.sqrt(np.mean(np.square(sigmas), axis=(0, 2)))  # of P and of S
    assert spread == pytest.approx([1.0, 1.0], abs=0.2)
    # all virial pressures 10 sigma too large: psi is not stationary
    rs = [1.7, *RS]
    wrong = {(density, kelvin): (0.0, 0.0, 10.0) for density in rs for kelvin in KELVINS}
    runs = [RunFolder(write_gas(tmp_path / f"wrong{seed}", rs, KELVINS, seed, wrong)) for seed in (1, 2, 3, 4)]
    found = [consistency(fit_surface(collect([run]), 8, PROTON_MASS)) for run in runs]
    pressure = np.mean([each.pressure for each in found], axis=0)  # of each state, with an error of 0.5
    assert pressure.min() > 1.0
    assert pressure.mean() > 3.0
    assert max(np.abs(each.entropy).max() for each in found) < 4.0


def test_a_bad_state_is_named(tmp_path: Path) -> None:
    points = points_of(tmp_path / "run", seed=2, wrong={(1.9, 6000.0): (8.0, 0.0, 0.0)})
    fit = fit_surface(points, 8, PROTON_MASS)
    bad = [fit.points[number].state for number in suspicious(fit)]
    assert [(state.rs, state.temperature_kelvin) for state in bad] == [(1.9, 6000.0)]
    (line,) = remarks(state_table(fit))
    assert line.startswith("rs = 1.9, T = 6000 K: does not fit the other states: F by +")
    good = fit_surface(points_of(tmp_path / "good", seed=2), 8, PROTON_MASS)
    assert suspicious(good) == []
    assert remarks(state_table(good)) == []
    assert all(0.0 < one.probability <= 1.0 for one in leave_one_out(good))


def test_a_state_without_F_still_counts(tmp_path: Path) -> None:
    points = points_of(tmp_path / "run", seed=3)
    hidden = points[4].values.copy()
    hidden[0] = math.nan
    first = points[4]
    points[4] = Point(first.state, hidden, first.covariance, first.run, False, ("the map folds",))
    fit = fit_surface(points, 8, PROTON_MASS)
    assert len(fit.data) == 3 * 12 - 1
    row = state_table(fit).iloc[4]
    assert math.isnan(row["free_energy_per_atom"])
    assert np.isfinite(row["fit_free_energy_per_atom"])
    assert row["remark"] == "F is not reported; not converged (the map folds)"


def test_volume_and_rs() -> None:
    assert float(volume_per_atom(2.0)) == pytest.approx(33.5103216, rel=1e-8)
    assert float(rs_of_volume(volume_per_atom(1.37))) == pytest.approx(1.37)
