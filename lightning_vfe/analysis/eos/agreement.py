"""How well the states agree with derivatives of F, and with the surface through all others."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2 as chi2_distribution

from lightning_vfe.analysis.eos.fit import Fit, determines, fit_terms, ideal_of, numbers_of, rows_of, shared_errors
from lightning_vfe.analysis.eos.surface import volume_per_atom

SUSPICIOUS = 0.0027
"""Probability of a residual below which a state is said not to fit: three standard errors of one number."""


@dataclass(frozen=True)
class Consistency:
    """Measured minus derived, in units of the error of the difference; nan where it cannot be tested.

    Attributes:
        pressure: virial P against -dF/dV.  # (points,)
        entropy: (E - F)/T against -dF/dT.  # (points,)
    """

    pressure: np.ndarray
    entropy: np.ndarray


def consistency(fit: Fit) -> Consistency:
    """Compare P and S with derivatives of the measured F.

    The derivatives are those of a surface through the values of F alone. It has as many terms as these determine;
    further ones, which describe the curvature between the states, are those of the joint fit. All of it is linear in
    the data, so that the errors of the differences follow from the covariance of the data.
    """
    basis, terms = fit.surface.basis, fit.surface.basis.terms
    of_free_energy = np.flatnonzero(fit.kind == 0)
    rows = fit.design[of_free_energy]
    low = _lowest(fit, rows)
    own = np.zeros((len(of_free_energy), len(fit.data)))
    own[np.arange(len(of_free_energy)), of_free_energy] = 1.0
    derived = fit.gain.copy()  # (terms, data): coefficients by the data
    if low.any():
        derived[low] = np.linalg.pinv(rows[:, low]) @ (own - rows[:, ~low] @ fit.gain[~low])
    has_slope = [bool(low[terms.indices[:, axis] > 0].any()) for axis in (0, 1)]
    pressure, entropy = np.full((2, len(fit.points)), math.nan)
    for number, point in enumerate(fit.points):
        place = np.array(volume_per_atom(point.state.rs)), np.array(point.kT)
        index = {int(fit.kind[i]): i for i in np.flatnonzero(fit.owner == number)}
        if has_slope[0]:
            difference = basis.rows(*place, 1, 0) @ derived
            difference[index[2]] += 1.0
            pressure[number] = _sigmas(difference, fit)
        if has_slope[1] and 0 in index:
            difference = basis.rows(*place, 0, 1) @ derived
            difference[index[1]] += 1.0 / point.kT
            difference[index[0]] -= 1.0 / point.kT
            entropy[number] = _sigmas(difference, fit)
    return Consistency(pressure, entropy)


@dataclass(frozen=True)
class LeftOut:
    """How a point differs from the surface through all others.

    Attributes:
        sigmas: of F, E and P, in units of the error of the difference; nan where the others determine no surface.
        probability: of a difference as large as this or larger.
    """

    sigmas: np.ndarray
    probability: float


def leave_one_out(fit: Fit) -> list[LeftOut]:
    """For each point, its difference from the surface of the same terms through the others."""
    found = []
    for number, point in enumerate(fit.points):
        rest = fit_terms([*fit.points[:number], *fit.points[number + 1 :]], fit.surface.basis)
        sigmas = np.full(3, math.nan)
        if rest is None or rest.dof < 1:
            found.append(LeftOut(sigmas, math.nan))
            continue
        known, rows = np.isfinite(point.values), rows_of(fit.surface.basis, point)
        difference = point.values - ideal_of(fit.surface.basis, point) - rows @ rest.surface.coefficients
        # F of the point and of the others may share errors of ln Z
        common = np.outer([1.0, 0.0, 0.0], shared_errors(point, rest.points, rest.owner, rest.kind)) @ rest.gain.T
        common = rest.excess * common @ rows.T
        covariance = rest.excess * point.covariance + rows @ rest.surface.covariance @ rows.T - common - common.T
        sigmas = difference / np.sqrt(np.diag(covariance))
        whole = difference[known] @ np.linalg.solve(covariance[np.ix_(known, known)], difference[known])
        found.append(LeftOut(sigmas, float(chi2_distribution.sf(whole, known.sum()))))
    return found


def suspicious(fit: Fit) -> list[int]:
    """Numbers of the points that do not fit: the worst one, then the worst of the others, until they agree."""
    left, found = list(range(len(fit.points))), list[int]()
    while len(left) > 2:
        rest = fit_terms([fit.points[number] for number in left], fit.surface.basis)
        if rest is None:
            break
        chances = [one.probability for one in leave_one_out(rest)]
        if not np.isfinite(chances).any() or np.nanmin(chances) > SUSPICIOUS:
            break
        found.append(left.pop(int(np.nanargmin(chances))))
    return found


def _lowest(fit: Fit, rows: np.ndarray) -> np.ndarray:
    """The terms of low order that F alone determines, as many powers and functions of T as it can.  # (terms,)"""
    terms = fit.surface.basis.terms
    with_free_energy = [point for point in fit.points if np.isfinite(point.values[0])]
    densities, temperatures = numbers_of(with_free_energy)
    sizes = itertools.product(
        range(1, min(terms.density, densities) + 1), range(1, min(terms.temperature, temperatures) + 1)
    )
    for density, temperature in sorted(sizes, key=lambda size: -size[0] * size[1]):
        low = (terms.indices < (density, temperature)).all(axis=1)
        if determines(rows[:, low]):
            return np.asarray(low)
    return np.zeros(terms.num_terms, dtype=bool)


def _sigmas(form: np.ndarray, fit: Fit) -> float:
    """A linear form of the data in units of its error."""
    error = math.sqrt(form @ fit.covariance @ form)
    return float(form @ fit.data) / error if error > 0 else math.nan
