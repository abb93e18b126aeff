"""The principal Hugoniot: where a shock takes the cryogenic liquid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.polynomial import Polynomial
from scipy import constants
from scipy.optimize import brentq

from lightning_vfe.analysis.eos.points import Point
from lightning_vfe.analysis.eos.surface import Surface, kelvin_to_kT, rs_of_volume, volume_per_atom
from lightning_vfe.errors import SettingError
from lightning_vfe.physics.units import BOHR_TO_ANGSTROM, HARTREE_PER_BOHR3_TO_GPA, NUCLEAR_MASSES

GROUND_STATE_LIMIT = 10_000.0
"""Kelvin. Above it, excited electrons, which the model leaves out, change E and P."""
STATISTICAL_ONLY = "the error is statistical only: two densities give no truncation error"
"""Remark on a row whose truncation error is not known."""
STEP = 1e-5
"""Relative step in V of the slope of the mismatch."""
ELECTRON_MASS_GRAM = constants.electron_mass * 1e3
INITIAL = {"D": (0.167, -0.583725), "H": (0.0708, -0.582284)}
"""Density in g/cm^3 and energy in Ha per atom of the cryogenic liquids.

D: density and energy of Tenti et al., PRB 110, L041107 (2024). H: density of the liquid at 20 K, and -1/2 - D_0/2 with
the dissociation energy D_0 = 36118.07 cm^-1 of H2 (Liu et al., J. Chem. Phys. 130, 174306 (2009)), which leaves out the
binding of the liquid, below 1 mHa per atom."""


@dataclass(frozen=True)
class InitialState:
    """The state before the shock.

    Attributes:
        energy: E_0 per atom in Ha.
        volume: V_0 per atom in bohr^3.
        pressure: P_0 in Ha/bohr^3.
    """

    energy: float
    volume: float
    pressure: float = 0.0

    @classmethod
    def of(
        cls,
        nucleus: str = "D",
        density_g_per_cm3: float | None = None,
        energy_per_atom: float | None = None,
        pressure_gpa: float = 0.0,
    ) -> InitialState:
        """The cryogenic liquid of an isotope.

        Args:
            nucleus: D or H.
            density_g_per_cm3: None takes that of INITIAL.
            energy_per_atom: in Ha, with the zero-point motion of the molecules; None takes that of INITIAL.
            pressure_gpa: P_0.

        Raises:
            SettingError: another nucleus, or a density that is not positive.
        """
        if nucleus not in INITIAL:
            raise SettingError("hugoniot.nucleus", nucleus, "must be D or H", "the mass enters the initial volume")
        density, energy = INITIAL[nucleus]
        density = density if density_g_per_cm3 is None else float(density_g_per_cm3)
        energy = energy if energy_per_atom is None else float(energy_per_atom)
        if not 0.0 < density < math.inf:
            reason, remedy = "must be positive", "0.167 is that of liquid deuterium"
            raise SettingError("hugoniot.density_g_per_cm3", density, reason, remedy)
        centimetre = 1e8 / BOHR_TO_ANGSTROM  # in bohr
        volume = (NUCLEAR_MASSES[nucleus] + 1.0) * ELECTRON_MASS_GRAM / density * centimetre**3
        return cls(energy, volume, pressure_gpa / HARTREE_PER_BOHR3_TO_GPA)

    def mismatch(self, energy: np.ndarray, pressure: np.ndarray, volume: np.ndarray) -> np.ndarray:
        """E - E_0 + (P + P_0)(V - V_0)/2, zero on the Hugoniot (Rankine and Hugoniot)."""
        return np.asarray(energy - self.energy + 0.5 * (pressure + self.pressure) * (volume - self.volume))


def hugoniot_of_surface(
    surface: Surface, start: InitialState, kelvins: Sequence[float], rs: tuple[float, float]
) -> pd.DataFrame:
    """The Hugoniot of a fitted surface, with errors from the covariance of its coefficients and from its truncation.

    To first order, another surface moves the zero V of the mismatch h by -dh / (dh/dV).

    Args:
        surface: F(V, T).
        start: E_0, V_0, P_0.
        kelvins: temperatures.
        rs: range of densities in which it is sought; the surface is not extrapolated.

    Returns:
        A row for each temperature at which it runs through the range: see `_table`.
    """
    low, high = (float(volume) for volume in volume_per_atom(np.array(rs)))
    rows = []
    for kelvin in kelvins:
        kT = kelvin_to_kT(kelvin)

        def mismatch(volume: float, each: Surface = surface, kT: np.ndarray = kT) -> float:
            v = np.array(volume)
            return float(start.mismatch(each.energy(v, kT), each.pressure(v, kT), v))

        if mismatch(low) * mismatch(high) > 0:
            continue
        found = brentq(mismatch, low, high)
        step = STEP * found
        slope = (mismatch(found + step) - mismatch(found - step)) / (2.0 * step)
        slope_p = float(surface.pressure_slope(np.array(found), kT))

        def place(
            each: Surface, kT: np.ndarray = kT, found: float = found, slope: float = slope, slope_p: float = slope_p
        ) -> np.ndarray:
            """V and P on the Hugoniot to first order, of a surface near the fitted one."""
            change = -(mismatch(found, each, kT) - mismatch(found, surface, kT)) / slope
            return np.array([found + change, float(each.pressure(np.array(found), kT)) + slope_p * change])

        rows.append((kelvin, *place(surface), *surface.error(place), *surface.truncation_error(place)))
    return _table(rows, start)


def hugoniot_of_points(points: Sequence[Point], start: InitialState) -> pd.DataFrame:
    """The Hugoniot of measured E and P alone, without a surface.

    At each temperature with at least two densities, E and P V are interpolated in u = V^(-1/3), of which they are
    polynomials of second degree where kinetic and Coulomb energy scale with the density: a parabola, or a line where
    there are two densities, by least squares with the errors of the mismatch h as weights. The error of the zero of h
    follows from the covariance of E and P. The truncation error is the distance to the zero between lines through the
    two densities around it. It is not known where there are two densities; the row says so in its remark.

    Args:
        points: of one or several temperatures.
        start: E_0, V_0, P_0.

    Returns:
        A row for each temperature at which h has a zero between the states: see `_table`.
    """
    rows = []
    for kelvin in sorted({point.state.temperature_kelvin for point in points}):
        own = [point for point in points if point.state.temperature_kelvin == kelvin]
        found = _crossing(own, start) if len({point.state.rs for point in own}) > 1 else None
        if found is not None:
            rows.append((kelvin, *found))
    return _table(rows, start)


def _crossing(points: Sequence[Point], start: InitialState) -> tuple[float, ...] | None:
    """V, P, their errors and truncation errors on the Hugoniot, or None where h has no zero between the points."""
    densities = sorted({point.state.rs for point in points})
    found = _zero(points, start, degree=min(2, len(densities) - 1))
    if found is None or len(densities) == 2:
        return None if found is None else (*found, math.nan, math.nan)
    upper = min(max(1, int(np.searchsorted(densities, rs_of_volume(found[0])))), len(densities) - 1)
    around = [point for point in points if point.state.rs in densities[upper - 1 : upper + 1]]
    line = _zero(around, start, degree=1)
    truncation = [math.nan] * 2 if line is None else [abs(line[i] - found[i]) for i in range(2)]
    errors = [math.hypot(found[2 + i], 0.0 if line is None else truncation[i]) for i in range(2)]
    return *found[:2], *errors, *truncation


def _zero(points: Sequence[Point], start: InitialState, degree: int) -> tuple[float, float, float, float] | None:
    """V and P at the zero of h with their statistical errors, from polynomials E(u) and P V(u) of u = V^(-1/3)."""
    volume = np.array([float(volume_per_atom(point.state.rs)) for point in points])
    unit = np.stack([np.ones_like(volume), volume], axis=1)  # of E and P V
    values = np.array([point.values[1:] for point in points]) * unit  # (points, 2)
    covariance = np.array([point.covariance[1:, 1:] for point in points]) * unit[:, :, None] * unit[:, None, :]
    weight = 0.5 * (1.0 - start.volume / volume)
    direction = np.stack([np.ones_like(volume), weight], axis=1)
    error_of_h = np.sqrt(np.einsum("pi,pij,pj->p", direction, covariance, direction))
    u = volume ** (-1.0 / 3.0)
    design = np.vander(u, degree + 1, increasing=True)
    gain = np.linalg.pinv(design / error_of_h[:, None]) / error_of_h  # (degree + 1, points)
    energy, product = (Polynomial(gain @ column) for column in values.T)

    def mismatch(u: float) -> float:
        v = u**-3.0
        return float(start.mismatch(np.array(energy(u)), np.array(product(u) / v), np.array(v)))

    if mismatch(u.min()) * mismatch(u.max()) > 0.0:
        return None
    zero = float(brentq(mismatch, u.min(), u.max()))
    v, pv, pv_slope = zero**-3.0, product(zero), product.deriv()(zero)
    v_slope = -3.0 * v / zero
    share = 0.5 * (1.0 - start.volume / v)
    slope = energy.deriv()(zero) + share * pv_slope + 0.5 * (pv * start.volume / v**2 + start.pressure) * v_slope
    # linear response of the zero and of P there to E and P V of each point
    of_value = (zero ** np.arange(degree + 1) @ gain)[:, None]
    of_zero = -of_value * np.array([1.0, share]) / slope
    of_pressure = of_value * np.array([0.0, 1.0]) / v + (pv_slope / v - pv * v_slope / v**2) * of_zero
    errors = [math.sqrt(np.einsum("pi,pij,pj->", form, covariance, form)) for form in (of_zero, of_pressure)]
    return v, float(pv / v), abs(v_slope) * errors[0], errors[1]


def _table(rows: Sequence[tuple[float, ...]], start: InitialState) -> pd.DataFrame:
    """temperature_kelvin, rs, compression V_0/V and pressure_gpa with errors, and whether T is within the limit.

    The errors contain the truncation error, which NAME_truncation holds apart. `remark` says where it is not known.
    """
    kelvin, volume, pressure, volume_error, pressure_error, *truncated = np.array(rows, dtype=float).reshape(-1, 7).T
    return pd.DataFrame(
        {
            "temperature_kelvin": kelvin,
            "rs": rs_of_volume(volume),
            "rs_error": rs_of_volume(volume) * volume_error / (3.0 * volume),
            "compression": start.volume / volume,
            "compression_error": start.volume / volume**2 * volume_error,
            "compression_truncation": start.volume / volume**2 * truncated[0],
            "pressure_gpa": pressure * HARTREE_PER_BOHR3_TO_GPA,
            "pressure_gpa_error": pressure_error * HARTREE_PER_BOHR3_TO_GPA,
            "pressure_gpa_truncation": truncated[1] * HARTREE_PER_BOHR3_TO_GPA,
            "ground_state_electrons": kelvin <= GROUND_STATE_LIMIT,
            "remark": np.where(np.isnan(truncated[0]), STATISTICAL_ONLY, ""),
        }
    )
