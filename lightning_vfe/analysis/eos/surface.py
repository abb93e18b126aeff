"""F(V, T) as the ideal gas of the nuclei plus a small polynomial, and what follows from it by differentiation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.polynomial import polynomial
from scipy.optimize import brentq

from lightning_vfe.physics.units import KELVIN_TO_HARTREE

MOST_POWERS = 5
"""Powers of (V_0/V)^(1/3) at most."""
MOST_THERMAL = 5
"""Functions of T at most: 1, t, t ln t, t^2, t^3."""


class Terms(NamedTuple):
    """Size of the polynomial: the terms x^i theta_j(t) with i < density, j < temperature and i + j < order.

    Attributes:
        density: number of powers of x = (V_0/V)^(1/3) - 1, from x^0 on.
        temperature: number of functions of t = T/T_0: the first of 1, t, t ln t, t^2, t^3.
        order: bound on i + j; density + temperature - 1 or more leaves no product out.
    """

    density: int
    temperature: int
    order: int = MOST_POWERS + MOST_THERMAL - 1

    @property
    def indices(self) -> np.ndarray:
        """i and j of each term.  # (num_terms, 2)"""
        pairs = np.indices((self.density, self.temperature)).reshape(2, -1).T
        return np.asarray(pairs[pairs.sum(axis=1) < self.order])

    @property
    def num_terms(self) -> int:
        """Number of coefficients."""
        return len(self.indices)


def volume_per_atom(rs: float | np.ndarray) -> np.ndarray:
    """v = 4 pi rs^3 / 3 in bohr^3."""
    return np.asarray(4.0 * math.pi / 3.0 * np.asarray(rs, dtype=float) ** 3)


def rs_of_volume(volume: float | np.ndarray) -> np.ndarray:
    """rs in bohr of a volume per atom in bohr^3."""
    return np.cbrt(3.0 * np.asarray(volume, dtype=float) / (4.0 * math.pi))


@dataclass(frozen=True)
class Basis:
    """F per atom = F_ideal(v, T) + sum_ij c_ij x^i theta_j(t), with v the volume per atom.

    F_ideal = kT [ln N! / N - ln(N v) + 3 ln lambda_dB] is the exact free energy of N free classical nuclei in a cube.
    It holds the strongest dependence on T, so that few terms are enough for the rest. x = (V_0/V)^(1/3) - 1 is linear
    in 1/rs: kinetic energies scale as 1/rs^2 and Coulomb energies as 1/rs, so that two powers hold most of the rest.

    Attributes:
        num_atoms: N.
        nuclear_mass: in electron masses.
        volume: V_0, per atom in bohr^3.
        kT: k_B T_0 in Ha.
        terms: size of the polynomial.
    """

    num_atoms: int
    nuclear_mass: float
    volume: float
    kT: float
    terms: Terms

    def rows(self, volume: np.ndarray, kT: np.ndarray, of_volume: int = 0, of_kT: int = 0) -> np.ndarray:
        """Derivatives d^a/dv^a d^b/d(kT)^b of all functions x^i theta_j.

        Args:
            volume: per atom, in bohr^3.  # (...)
            kT: in Ha.  # (...)
            of_volume: a, 0 to 2.
            of_kT: b, 0 to 2.

        Returns:
            # (..., terms.num_terms)
        """
        volume, kT = np.broadcast_arrays(np.asarray(volume, dtype=float), np.asarray(kT, dtype=float))
        x, t = (self.volume / volume) ** (1.0 / 3.0) - 1.0, kT / self.kT
        u = (1.0 + x)[..., None]
        if of_volume == 0:
            powers = self._powers(x, 0)
        elif of_volume == 1:  # dx/dv = -u / (3 v)
            powers = -u / 3.0 * self._powers(x, 1)
        else:  # d^2x/dv^2 = 4 u / (9 v^2)
            powers = u**2 / 9.0 * self._powers(x, 2) + 4.0 * u / 9.0 * self._powers(x, 1)
        powers = powers / volume[..., None] ** of_volume
        thermal = _thermal(t, of_kT) / self.kT**of_kT
        i, j = self.terms.indices.T
        return np.asarray(powers[..., i] * thermal[..., j])

    def ideal(self, volume: np.ndarray, kT: np.ndarray, of_volume: int = 0, of_kT: int = 0) -> np.ndarray:
        """The same derivative of F_ideal.  # (...)"""
        volume, kT = np.broadcast_arrays(np.asarray(volume, dtype=float), np.asarray(kT, dtype=float))
        thermal = 1.5 * np.log(2.0 * math.pi / (self.nuclear_mass * kT))
        per_kT = math.lgamma(self.num_atoms + 1) / self.num_atoms - np.log(self.num_atoms * volume) + thermal
        return np.asarray(
            {
                (0, 0): kT * per_kT,
                (1, 0): -kT / volume,
                (2, 0): kT / volume**2,
                (0, 1): per_kT - 1.5,
                (1, 1): -1.0 / volume,
                (0, 2): -1.5 / kT,
            }[of_volume, of_kT]
        )

    def _powers(self, x: np.ndarray, order: int) -> np.ndarray:
        identity = np.eye(self.terms.density)
        columns = [polynomial.polyval(x, polynomial.polyder(power, order)) for power in identity]
        return np.stack([np.broadcast_to(column, x.shape) for column in columns], axis=-1)


def _thermal(t: np.ndarray, order: int) -> np.ndarray:
    one, zero = np.ones_like(t), np.zeros_like(t)
    if order == 0:
        functions = [one, t, t * np.log(t), t**2, t**3]
    elif order == 1:
        functions = [zero, one, np.log(t) + 1.0, 2.0 * t, 3.0 * t**2]
    else:
        functions = [zero, zero, 1.0 / t, 2.0 * one, 6.0 * t]
    return np.stack(functions, axis=-1)


@dataclass(frozen=True)
class Surface:
    """A fitted F(V, T) per atom. All methods take volumes per atom in bohr^3 and kT in Ha, and broadcast.

    P = -dF/dV, S = -dF/dT, E = F + TS, C_V = T dS/dT, and for the adiabatic sound speed, with m the mass of an atom,

        c^2 = -V^2/m (dP/dV)_S,    (dP/dV)_S = (dP/dV)_T - T (dP/dT)_V^2 / C_V.

    Attributes:
        basis: of the polynomial.
        coefficients: # (terms.num_terms,)
        covariance: of the coefficients.  # (terms.num_terms, terms.num_terms)
        rivals: surfaces of other numbers of terms that the data admit, each with its Akaike weight; the weights of all,
            with that of this surface, add up to 1.
    """

    basis: Basis
    coefficients: np.ndarray
    covariance: np.ndarray
    rivals: tuple[tuple[float, Surface], ...] = ()

    def _derivative(self, volume: np.ndarray, kT: np.ndarray, of_volume: int, of_kT: int) -> np.ndarray:
        rows = self.basis.rows(volume, kT, of_volume, of_kT)
        return np.asarray(rows @ self.coefficients + self.basis.ideal(volume, kT, of_volume, of_kT))

    def free_energy(self, volume: np.ndarray, kT: np.ndarray) -> np.ndarray:
        """F in Ha."""
        return self._derivative(volume, kT, 0, 0)

    def pressure(self, volume: np.ndarray, kT: np.ndarray) -> np.ndarray:
        """P in Ha/bohr^3."""
        return -self._derivative(volume, kT, 1, 0)

    def pressure_slope(self, volume: np.ndarray, kT: np.ndarray) -> np.ndarray:
        """(dP/dV)_T in Ha/bohr^6."""
        return -self._derivative(volume, kT, 2, 0)

    def entropy(self, volume: np.ndarray, kT: np.ndarray) -> np.ndarray:
        """S in k_B."""
        return -self._derivative(volume, kT, 0, 1)

    def energy(self, volume: np.ndarray, kT: np.ndarray) -> np.ndarray:
        """E in Ha."""
        return np.asarray(self.free_energy(volume, kT) + kT * self.entropy(volume, kT))

    def heat_capacity(self, volume: np.ndarray, kT: np.ndarray) -> np.ndarray:
        """C_V in k_B."""
        return np.asarray(-kT * self._derivative(volume, kT, 0, 2))

    def sound_speed(self, volume: np.ndarray, kT: np.ndarray) -> np.ndarray:
        """c in atomic units of velocity; nan where the surface is not stable."""
        of_kT = -self._derivative(volume, kT, 1, 1)
        capacity = self.heat_capacity(volume, kT)
        with np.errstate(divide="ignore", invalid="ignore"):
            square = (
                -(volume**2)
                * (self.pressure_slope(volume, kT) - kT * of_kT**2 / capacity)
                / (self.basis.nuclear_mass + 1.0)
            )
            return np.where((capacity > 0) & (square > 0), np.sqrt(np.abs(square)), np.nan)

    def isentrope(self, entropy: float, volume: np.ndarray, kT_range: tuple[float, float]) -> np.ndarray:
        """kT in Ha at each volume at which S has a value; nan where it has it at no temperature of the range."""

        def kT_at(one: float) -> float:
            def excess(kT: float) -> float:
                return float(self.entropy(np.asarray(one), np.asarray(kT))) - entropy

            low, high = kT_range
            return brentq(excess, low, high) if excess(low) * excess(high) <= 0 else math.nan

        return np.array([kT_at(float(one)) for one in np.atleast_1d(volume)])

    def error(self, quantity: Callable[[Surface], np.ndarray]) -> np.ndarray:
        """Standard error of whatever follows from the surface: the statistical and the truncation error together.

        Args:
            quantity: of a surface.
        """
        return np.asarray(np.hypot(self.statistical_error(quantity), self.truncation_error(quantity)))

    def truncation_error(self, quantity: Callable[[Surface], np.ndarray]) -> np.ndarray:
        """Spread over the surfaces of other numbers of terms, sigma^2 = sum_m w_m (q_m - q)^2 with Akaike weights w_m.

        Args:
            quantity: of a surface.

        Source: Burnham and Anderson, Model Selection and Multimodel Inference, section 4.3 (2002).
        """
        value, total = np.asarray(quantity(self)), np.asarray(0.0)
        for weight, rival in self.rivals:
            total = total + weight * (np.asarray(quantity(rival)) - value) ** 2
        return np.asarray(np.sqrt(total) + np.zeros_like(value))

    def statistical_error(self, quantity: Callable[[Surface], np.ndarray]) -> np.ndarray:
        """Standard error of whatever follows from the surface, by the delta method from the errors of the data.

        sigma^2 = sum_k [(q(c + d_k) - q(c - d_k)) / 2]^2, where d_k are the columns of the root of the covariance.
        It is exact for what is linear in the coefficients: F, P, S, E and C_V.

        Args:
            quantity: of a surface.
        """
        values, vectors = np.linalg.eigh(self.covariance)
        total: np.ndarray = np.asarray(0.0)
        for value, vector in zip(np.clip(values, 0.0, None), vectors.T, strict=True):
            step = math.sqrt(value) * vector
            up, down = (self._moved(sign * step) for sign in (1.0, -1.0))
            total = total + (0.5 * (np.asarray(quantity(up)) - np.asarray(quantity(down)))) ** 2
        return np.asarray(np.sqrt(total))

    def _moved(self, step: np.ndarray) -> Surface:
        return Surface(self.basis, self.coefficients + step, self.covariance)


def kelvin_to_kT(temperature_kelvin: float | np.ndarray) -> np.ndarray:
    """kT in Ha."""
    return np.asarray(KELVIN_TO_HARTREE * np.asarray(temperature_kelvin, dtype=float))
