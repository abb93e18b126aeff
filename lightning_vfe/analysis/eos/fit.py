"""The surface F(V, T) that fits F, E and P of all states together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import block_diag

from lightning_vfe.analysis.eos.points import Point
from lightning_vfe.analysis.eos.surface import MOST_POWERS, MOST_THERMAL, Basis, Surface, Terms, volume_per_atom
from lightning_vfe.errors import SettingError

LEAST_WEIGHT = 1e-4
"""Surfaces of a smaller Akaike weight do not count."""
CURVED = 3
"""Powers or functions of T from which on the surface has a compressibility or a heat capacity beyond the ideal gas."""


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

    is taken (Akaike's information criterion for few data: Hurvich and Tsai, Biometrika 76, 297 (1989)). The others are
    its rivals, with the weights exp(-(criterion less the least one)/2): their spread is the truncation error. A power
    of 1/rs needs a further density, a further function of T a further temperature: with few states there are few terms.
    Three of each, and all their products, are taken wherever the data determine them, so that the errors of the
    compressibility and of C_V are known. Beyond these, the data choose the highest order of the products.

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
    num_densities, num_temperatures = numbers_of(points)
    least = Terms(min(CURVED, num_densities + 1), min(CURVED, num_temperatures + 1))
    least = least._replace(order=least.density + least.temperature - 1)
    sizes = [
        Terms(density, temperature, order)
        for density in range(min(2, num_densities), min(MOST_POWERS, num_densities + 1) + 1)
        for temperature in range(min(2, num_temperatures), min(MOST_THERMAL, num_temperatures + 1) + 1)
        for order in range(
            min(max(least.order, density, temperature), density + temperature - 1), density + temperature
        )
    ]
    bases = [_basis(points, num_atoms, nuclear_mass, size) for size in sizes]
    fits = [fit for basis in bases if (fit := fit_terms(points, basis)) is not None and fit.dof > 1]
    if not fits:
        names = sorted({point.run for point in points})
        raise SettingError("runs", names, "have too few results for a surface", "give runs of more states")
    curved = [fit for fit in fits if all(n >= one for n, one in zip(fit.surface.basis.terms, least, strict=True))]
    return _with_rivals(min(curved or fits, key=_information), fits)


def _with_rivals(best: Fit, fits: Sequence[Fit]) -> Fit:
    """The chosen fit; its surface knows the others that have a weight worth the name."""
    criteria = np.array([_information(fit) for fit in fits])
    weights = np.exp(0.5 * (criteria.min() - criteria))
    weights = np.where(weights < LEAST_WEIGHT * weights.sum(), 0.0, weights)
    weights /= weights.sum()
    pairs = zip(weights.tolist(), fits, strict=True)
    rivals = tuple((weight, fit.surface) for weight, fit in pairs if weight and fit is not best)
    return replace(best, surface=replace(best.surface, rivals=rivals))


def fit_terms(points: Sequence[Point], basis: Basis) -> Fit | None:
    """Fit a given polynomial; None where the points do not determine it."""
    blocks, values, covariances, owners, kinds = [], [], [], [], []
    for number, point in enumerate(points):
        known = np.flatnonzero(np.isfinite(point.values))
        blocks.append(rows_of(basis, point)[known])
        values.append((point.values - ideal_of(basis, point))[known])
        covariances.append(point.covariance[np.ix_(known, known)])
        owners += [number] * len(known)
        kinds += list(known)
    design, data, owner, kind = np.concatenate(blocks), np.concatenate(values), np.array(owners), np.array(kinds)
    common = [shared_errors(points[row], points, owner, kind) for row in owner]
    covariance = block_diag(*covariances) + np.where(kind == 0, np.transpose(common), 0.0)
    whiten = np.linalg.inv(np.linalg.cholesky(covariance))
    white = whiten @ design
    if not determines(white):
        return None
    gain = np.linalg.pinv(white) @ whiten
    surface = Surface(basis, gain @ data, gain @ covariance @ gain.T)
    fit = Fit(surface, tuple(points), design, data, covariance, gain, owner, kind)
    return replace(fit, surface=replace(surface, covariance=fit.excess * surface.covariance))


def _information(fit: Fit) -> float:
    """What the best number of terms makes least."""
    k = fit.surface.basis.terms.num_terms
    return fit.chi2 + 2.0 * k + 2.0 * k * (k + 1.0) / (fit.dof - 1.0)


def shared_errors(one: Point, points: Sequence[Point], owner: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """Covariance of F of a point with data of other points, by what their ln Z have in common.

    Args:
        one: the point.
        points: of the data.
        owner: number of the point of each datum.  # (data,)
        kind: 0, 1, 2 for F, E, P.  # (data,)

    Returns:
        In Ha^2; zero for E, P and the point itself.  # (data,)
    """
    return np.where(kind == 0, [one.shared.get(points[number].state, 0.0) for number in owner], 0.0)


def rows_of(basis: Basis, point: Point) -> np.ndarray:
    """F, E and P of the polynomial as linear forms of its coefficients.  # (3, terms)"""
    place = np.array(volume_per_atom(point.state.rs)), np.array(point.kT)
    free_energy, of_kT = basis.rows(*place), basis.rows(*place, 0, 1)
    return np.stack([free_energy, free_energy - point.kT * of_kT, -basis.rows(*place, 1, 0)])


def ideal_of(basis: Basis, point: Point) -> np.ndarray:
    """F, E and P of the ideal gas.  # (3,)"""
    place = np.array(volume_per_atom(point.state.rs)), np.array(point.kT)
    return np.array([basis.ideal(*place), 1.5 * point.kT, -basis.ideal(*place, 1, 0)])


def numbers_of(points: Sequence[Point]) -> tuple[int, int]:
    """How many densities and temperatures there are."""
    return len({p.state.rs for p in points}), len({p.state.temperature_kelvin for p in points})


def _basis(points: Sequence[Point], num_atoms: int, nuclear_mass: float, terms: Terms) -> Basis:
    """A polynomial around the middle of the points."""
    volume = math.exp(np.mean([np.log(volume_per_atom(point.state.rs)) for point in points]))
    kT = float(np.mean([point.kT for point in points]))
    return Basis(num_atoms, nuclear_mass, volume, kT, terms)


def determines(design: np.ndarray) -> bool:
    """Whether the columns are independent."""
    norms = np.linalg.norm(design, axis=0)
    return bool((norms > 0).all() and np.linalg.matrix_rank(design / norms, tol=1e-8) == design.shape[1])
