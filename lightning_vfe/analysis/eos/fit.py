"""The surface F(V, T) that fits F, E and P of all states together, and how well the states agree with it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import block_diag
from scipy.stats import chi2 as chi2_distribution

from lightning_vfe.analysis.eos.points import Point
from lightning_vfe.analysis.eos.surface import MOST_THERMAL, Basis, Surface, Terms, volume_per_atom
from lightning_vfe.errors import SettingError

MOST_POWERS = 5
"""Powers of ln(V/V_0) at most."""
CURVED = 3
"""Powers or functions of T from which on the surface has a compressibility or a heat capacity beyond the ideal gas."""
SUSPICIOUS = 0.0027
"""Probability of a residual below which a state is said not to fit: three standard errors of one number."""


@dataclass(frozen=True)
class Fit:
    """A weighted least-squares fit; the coefficients are linear in the data, c = gain (y - ideal).

    Attributes:
        surface: its covariance is larger by chi^2 per degree of freedom where that is above 1.
        points: in the order of the data.
        design: of the rows F, E, P of each point; rows of an F that is not reported are left out.  # (data, terms)
        data: y - ideal.  # (data,)
        covariance: of the data.  # (data, data)
        gain: # (terms, data)
        owner: number of the point of each row.  # (data,)
        kind: 0, 1, 2 for F, E, P.  # (data,)
    """

    surface: Surface
    points: tuple[Point, ...]
    design: np.ndarray
    data: np.ndarray
    covariance: np.ndarray
    gain: np.ndarray
    owner: np.ndarray
    kind: np.ndarray

    @property
    def chi2(self) -> float:
        """Sum of the squares of the residuals in units of their errors."""
        residual = self.data - self.design @ (self.gain @ self.data)
        return float(residual @ np.linalg.solve(self.covariance, residual))

    @property
    def dof(self) -> int:
        """Degrees of freedom: data minus terms."""
        return len(self.data) - int(self.design.shape[1])

    @property
    def excess(self) -> float:
        """chi^2 per degree of freedom where it is above 1, else 1."""
        return max(1.0, self.chi2 / self.dof) if self.dof > 0 else 1.0


def fit_surface(points: Sequence[Point], num_atoms: int, nuclear_mass: float) -> Fit:
    """Fit F, E and P of all points by one surface; the data choose the number of terms.

    Of all sizes of the polynomial that the states determine, the one with the least

        chi^2 + 2 k + 2 k (k + 1) / (n - k - 1),    k terms, n data,

    is taken (Akaike's information criterion for few data: Hurvich and Tsai, Biometrika 76, 297 (1989)). A further power
    of ln V needs a further density, a further function of T a further temperature: with few states there are few terms.
    Three of each are taken wherever the data determine them, so that the errors of the compressibility and of C_V are
    known.

    Args:
        points: at least two.
        num_atoms: N.
        nuclear_mass: in electron masses.

    Raises:
        SettingError: fewer than two states, or too few results.
    """
    if len(points) < 2:
        remedy = "give several runs, or train with system.rs=[1.9,2.0,2.1]"
        raise SettingError("runs", [point.run for point in points], "hold a single state: no surface", remedy)
    num_densities, num_temperatures = _numbers(points)
    sizes = itertools.product(
        range(min(2, num_densities), min(MOST_POWERS, num_densities + 1) + 1),
        range(min(2, num_temperatures), min(MOST_THERMAL, num_temperatures + 1) + 1),
    )
    bases = [_basis(points, num_atoms, nuclear_mass, Terms(*size)) for size in sizes]
    fits = [fit for basis in bases if (fit := fit_terms(points, basis)) is not None and fit.dof > 1]
    if not fits:
        names = sorted({point.run for point in points})
        raise SettingError("runs", names, "have too few results for a surface", "give runs of more states")
    least = min(CURVED, num_densities + 1), min(CURVED, num_temperatures + 1)
    curved = [fit for fit in fits if all(n >= one for n, one in zip(fit.surface.basis.terms, least, strict=True))]
    return min(curved or fits, key=_information)


def fit_terms(points: Sequence[Point], basis: Basis) -> Fit | None:
    """Fit a given polynomial; None where the points do not determine it."""
    blocks, values, covariances, owners, kinds = [], [], [], [], []
    for number, point in enumerate(points):
        known = np.flatnonzero(np.isfinite(point.values))
        blocks.append(_rows(basis, point)[known])
        values.append((point.values - _ideal(basis, point))[known])
        covariances.append(point.covariance[np.ix_(known, known)])
        owners += [number] * len(known)
        kinds += list(known)
    design, data, covariance = np.concatenate(blocks), np.concatenate(values), block_diag(*covariances)
    whiten = np.linalg.inv(np.linalg.cholesky(covariance))
    white = whiten @ design
    if not _determines(white):
        return None
    gain = np.linalg.pinv(white) @ whiten
    surface = Surface(basis, gain @ data, gain @ covariance @ gain.T)
    fit = Fit(surface, tuple(points), design, data, covariance, gain, np.array(owners), np.array(kinds))
    return replace(fit, surface=replace(surface, covariance=fit.excess * surface.covariance))


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
    has_slope = [bool(low.reshape(terms)[1:].any()), bool(low.reshape(terms)[:, 1:].any())]
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
        known, rows = np.isfinite(point.values), _rows(fit.surface.basis, point)
        difference = point.values - _ideal(fit.surface.basis, point) - rows @ rest.surface.coefficients
        covariance = rest.excess * point.covariance + rows @ rest.surface.covariance @ rows.T
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


def _information(fit: Fit) -> float:
    """What the best number of terms makes least."""
    k = fit.surface.basis.terms.num_terms
    return fit.chi2 + 2.0 * k + 2.0 * k * (k + 1.0) / (fit.dof - 1.0)


def _rows(basis: Basis, point: Point) -> np.ndarray:
    """F, E and P of the polynomial as linear forms of its coefficients.  # (3, terms)"""
    place = np.array(volume_per_atom(point.state.rs)), np.array(point.kT)
    free_energy, of_kT = basis.rows(*place), basis.rows(*place, 0, 1)
    return np.stack([free_energy, free_energy - point.kT * of_kT, -basis.rows(*place, 1, 0)])


def _ideal(basis: Basis, point: Point) -> np.ndarray:
    """F, E and P of the ideal gas.  # (3,)"""
    place = np.array(volume_per_atom(point.state.rs)), np.array(point.kT)
    return np.array([basis.ideal(*place), 1.5 * point.kT, -basis.ideal(*place, 1, 0)])


def _numbers(points: Sequence[Point]) -> tuple[int, int]:
    """How many densities and temperatures there are."""
    return len({p.state.rs for p in points}), len({p.state.temperature_kelvin for p in points})


def _basis(points: Sequence[Point], num_atoms: int, nuclear_mass: float, terms: Terms) -> Basis:
    """A polynomial around the middle of the points."""
    volume = math.exp(np.mean([np.log(volume_per_atom(point.state.rs)) for point in points]))
    kT = float(np.mean([point.kT for point in points]))
    return Basis(num_atoms, nuclear_mass, volume, kT, terms)


def _determines(design: np.ndarray) -> bool:
    """Whether the columns are independent."""
    norms = np.linalg.norm(design, axis=0)
    return bool((norms > 0).all() and np.linalg.matrix_rank(design / norms, tol=1e-8) == design.shape[1])


def _lowest(fit: Fit, rows: np.ndarray) -> np.ndarray:
    """The terms of low order that F alone determines, as many powers and functions of T as it can.  # (terms,)"""
    terms = fit.surface.basis.terms
    with_free_energy = [point for point in fit.points if np.isfinite(point.values[0])]
    densities, temperatures = _numbers(with_free_energy)
    sizes = itertools.product(
        range(1, min(terms.density, densities) + 1), range(1, min(terms.temperature, temperatures) + 1)
    )
    for density, temperature in sorted(sizes, key=lambda size: -size[0] * size[1]):
        low = np.zeros(terms, dtype=bool)
        low[:density, :temperature] = True
        if _determines(rows[:, low.ravel()]):
            return low.ravel()
    return np.zeros(terms.num_terms, dtype=bool)


def _sigmas(form: np.ndarray, fit: Fit) -> float:
    """A linear form of the data in units of its error."""
    error = math.sqrt(form @ fit.covariance @ form)
    return float(form @ fit.data) / error if error > 0 else math.nan
