"""Errors of ln Z that states have in common, and the truncation error of the surface."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lightning_vfe.analysis.eos.agreement import consistency, leave_one_out
from lightning_vfe.analysis.eos.fit import fit_surface, fit_terms
from lightning_vfe.analysis.eos.points import Point, collect
from lightning_vfe.analysis.eos.surface import Basis, Surface, Terms, kelvin_to_kT, volume_per_atom
from lightning_vfe.analysis.run import RunFolder
from lightning_vfe.physics.units import PROTON_MASS
from tests.helpers.states_of_gas import exact, write_gas

RS, KELVINS = [1.8, 1.9, 2.0, 2.1], [5000.0, 6000.0, 7000.0]
LOG_Z_ERROR = 0.12
"""Of ln Z per atom, ten times what the other errors of F are in units of kT."""


def with_common_error(points: list[Point], seed: int) -> list[Point]:
    """The points with an error of ln Z that has the correlation 0.9 between all states, as it is in F."""
    count = len(points)
    covariance = LOG_Z_ERROR**2 * (0.9 * np.ones((count, count)) + 0.1 * np.eye(count))
    shift = np.linalg.cholesky(covariance) @ np.random.default_rng(1000 + seed).normal(size=count)
    found = []
    for i, point in enumerate(points):
        values, own = point.values.copy(), point.covariance.copy()
        values[0] -= point.kT * shift[i]
        own[0, 0] += point.kT**2 * covariance[i, i]
        shared = {other.state: point.kT * other.kT * covariance[i, j] for j, other in enumerate(points) if j != i}
        found.append(replace(point, values=values, covariance=own, shared=shared))
    return found


def independent(points: list[Point]) -> list[Point]:
    return [replace(point, shared={}) for point in points]


def test_common_errors_of_ln_z_enter_once(tmp_path: Path) -> None:
    """Over many sets of errors: chi^2 per degree of freedom, F and S of the surface, and the tests are right.

    If the same errors are taken as independent, chi^2 is too small, and so is the error of F.
    """
    place = volume_per_atom(1.95), kelvin_to_kT(6200.0)
    truth = exact(8, 1.95, 6200.0)[0]
    reduced, deviations, wrong, sigmas, chances = [], [], [], [], []
    for seed in range(20):
        run = RunFolder(write_gas(tmp_path / str(seed), RS, KELVINS, seed=seed))
        points = with_common_error(collect([run]), seed)
        fit = fit_surface(points, 8, PROTON_MASS)
        alone = fit_terms(independent(points), fit.surface.basis)
        assert alone is not None
        reduced.append([fit.chi2 / fit.dof, alone.chi2 / alone.dof])
        for surface, kept in ((fit.surface, deviations), (alone.surface, wrong)):
            off = float(surface.free_energy(*place)) - truth
            kept.append(off / float(surface.statistical_error(lambda s: s.free_energy(*place))))
        sigmas.append(consistency(fit).entropy)
        chances += [one.probability for one in leave_one_out(fit)]
    assert np.mean(reduced, axis=0)[0] == pytest.approx(1.0, abs=0.15)
    assert np.mean(reduced, axis=0)[1] < 0.8
    assert np.sqrt(np.mean(np.square(deviations))) == pytest.approx(1.0, abs=0.35)
    assert np.sqrt(np.mean(np.square(wrong))) > 1.7
    assert np.sqrt(np.mean(np.square(sigmas))) == pytest.approx(1.0, abs=0.3)
    assert np.mean(chances) == pytest.approx(0.5, abs=0.1)
    assert np.mean(np.array(chances) < 0.1) == pytest.approx(0.1, abs=0.06)


def test_errors_that_are_fully_common_cancel_in_differences(tmp_path: Path) -> None:
    """One shift of ln Z for all states moves F/kT of the surface by it, and neither E nor P."""
    points = collect([RunFolder(write_gas(tmp_path / "run", RS, KELVINS, seed=1))])
    plain = fit_surface(points, 8, PROTON_MASS)
    common = []
    for point in points:
        own = point.covariance.copy()
        own[0, 0] += (point.kT * LOG_Z_ERROR) ** 2
        shared = {other.state: point.kT * other.kT * LOG_Z_ERROR**2 for other in points if other is not point}
        common.append(replace(point, covariance=own, shared=shared))
    fit = fit_terms(common, plain.surface.basis)
    assert fit is not None
    place = volume_per_atom(1.95), kelvin_to_kT(6200.0)
    for quantity in (lambda s: s.energy(*place), lambda s: s.pressure(*place)):
        before, after = (float(each.surface.statistical_error(quantity)) for each in (plain, fit))
        assert after == pytest.approx(before, rel=0.1)
    whole = float(fit.surface.statistical_error(lambda s: s.free_energy(*place)))
    assert whole == pytest.approx(LOG_Z_ERROR * float(place[1]), rel=0.05)


def test_truncation_error_is_the_weighted_spread() -> None:
    """By hand, for two surfaces; the error is that of both parts."""

    def constant(value: float) -> Surface:
        return Surface(Basis(8, PROTON_MASS, 33.0, 0.02, Terms(1, 1)), np.array([value]), np.array([[0.03**2]]))

    best = replace(constant(0.0), rivals=((0.2, constant(0.1)), (0.1, constant(-0.2))))

    def free_energy(surface: Surface) -> np.ndarray:
        return surface.free_energy(np.array([30.0, 40.0]), np.array(0.02))

    spread = np.sqrt(0.2 * 0.1**2 + 0.1 * 0.2**2)
    np.testing.assert_allclose(best.truncation_error(free_energy), spread)
    np.testing.assert_allclose(best.statistical_error(free_energy), 0.03)
    np.testing.assert_allclose(best.error(free_energy), np.hypot(0.03, spread))
    np.testing.assert_allclose(constant(0.0).truncation_error(free_energy), 0.0)


def test_rivals_are_the_other_admissible_surfaces(tmp_path: Path) -> None:
    """They have weights, and their spread is no larger than the statistical error where the data have little to say."""
    points = collect([RunFolder(write_gas(tmp_path / "run", RS, KELVINS, seed=4))])
    fit = fit_surface(points, 8, PROTON_MASS)
    weights = [weight for weight, _ in fit.surface.rivals]
    assert weights
    assert 0.0 < sum(weights) < 1.0
    place = volume_per_atom(1.95), kelvin_to_kT(6200.0)

    def pressure(surface: Surface) -> np.ndarray:
        return surface.pressure(*place)

    statistical, truncation = fit.surface.statistical_error(pressure), fit.surface.truncation_error(pressure)
    assert 0.0 < truncation < statistical
    assert float(fit.surface.error(pressure)) == pytest.approx(float(np.hypot(statistical, truncation)))
