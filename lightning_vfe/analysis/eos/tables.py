"""The tables of an equation of state."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lightning_vfe.analysis.eos.agreement import consistency, leave_one_out, suspicious
from lightning_vfe.analysis.eos.fit import CURVED, Fit
from lightning_vfe.analysis.eos.points import SYMBOLS, Point
from lightning_vfe.analysis.eos.surface import Surface, kelvin_to_kT, volume_per_atom
from lightning_vfe.analysis.states import State
from lightning_vfe.physics.finite_size import holds_long_waves
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.units import ATOMIC_VELOCITY_TO_KM_PER_S, HARTREE_PER_BOHR3_TO_GPA

LARGE = 3.0
"""Sigmas that are named where a state does not fit."""


def state_table(fit: Fit) -> pd.DataFrame:
    """A row for each state.

    Returns:
        volume in bohr^3 per atom. The measured free_energy_per_atom and energy_per_atom in Ha, entropy_per_atom in k_B
        and pressure_gpa, each with NAME_error. The same of the surface, with the prefix fit_, and heat_capacity of C_V
        in k_B per atom and sound_speed_km_per_s; their errors contain the truncation error, which fit_NAME_truncation
        holds apart. pressure_sigmas and entropy_sigmas of `agreement.consistency`. The differences of
        `agreement.leave_one_out`: left_out_F, left_out_E, left_out_P in sigmas, and left_out_probability. converged,
        run, and `remark` on a state that does not fit or is not to be trusted.
    """
    agreement, outside, bad = consistency(fit), leave_one_out(fit), suspicious(fit)
    rows = []
    for number, point in enumerate(fit.points):
        sigmas, chance = outside[number].sigmas, outside[number].probability
        row = _measured(point) | _derived(fit.surface, point)
        row |= {"pressure_sigmas": agreement.pressure[number], "entropy_sigmas": agreement.entropy[number]}
        row |= {f"left_out_{symbol}": value for symbol, value in zip(SYMBOLS, sigmas, strict=True)}
        row |= {"left_out_probability": chance, "converged": point.converged, "run": point.run}
        rows.append(row | {"remark": _remark(point, number in bad, sigmas, chance)})
    states = [(point.state.rs, point.state.temperature_kelvin) for point in fit.points]
    return pd.DataFrame(rows, index=pd.MultiIndex.from_tuples(states, names=["rs", "temperature_kelvin"]))


def surface_quantities(
    surface: Surface, volume: np.ndarray, kT: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Value, error and truncation error of all that follows from the surface, by its name in the table.

    C_V and the sound speed are nan where the states do not determine the second derivatives of F.

    Args:
        surface: F(V, T).
        volume: per atom, in bohr^3.  # (...)
        kT: in Ha.  # (...)
    """
    quantities: dict[str, Callable[[Surface], np.ndarray]] = {
        "free_energy_per_atom": lambda one: one.free_energy(volume, kT),
        "energy_per_atom": lambda one: one.energy(volume, kT),
        "entropy_per_atom": lambda one: one.entropy(volume, kT),
        "pressure_gpa": lambda one: one.pressure(volume, kT) * HARTREE_PER_BOHR3_TO_GPA,
        "heat_capacity": lambda one: one.heat_capacity(volume, kT),
        "sound_speed_km_per_s": lambda one: one.sound_speed(volume, kT) * ATOMIC_VELOCITY_TO_KM_PER_S,
    }
    found = {
        name: (quantity(surface), surface.error(quantity), surface.truncation_error(quantity))
        for name, quantity in quantities.items()
    }
    terms, nan = surface.basis.terms, np.full(np.shape(volume), np.nan)
    unknown = nan, nan, nan
    if terms.temperature < CURVED:
        found["heat_capacity"] = unknown
    if min(terms.density, terms.temperature) < CURVED:
        found["sound_speed_km_per_s"] = unknown
    return found


def fit_summary(fit: Fit) -> dict[str, Any]:
    """How good the fit is, and the surface: chi2, dof, coefficients, their covariance and the reference.

    `terms` are the powers i of x and the numbers j of the functions of T, for each coefficient.

    `rivals` are the surfaces of other numbers of terms, with their Akaike weights.
    """
    basis = fit.surface.basis
    return {
        "chi2": fit.chi2,
        "dof": fit.dof,
        "terms": basis.terms.indices.tolist(),
        "num_atoms": basis.num_atoms,
        "nuclear_mass": basis.nuclear_mass,
        "reference_volume": basis.volume,
        "reference_kT": basis.kT,
        "coefficients": fit.surface.coefficients.tolist(),
        "covariance": fit.surface.covariance.tolist(),
        "rivals": [
            {
                "weight": weight,
                "terms": rival.basis.terms.indices.tolist(),
                "coefficients": rival.coefficients.tolist(),
            }
            for weight, rival in fit.surface.rivals
        ],
    }


def remarks(table: pd.DataFrame) -> list[str]:
    """One line for each state that does not fit or is not to be trusted, the worst first."""
    rows = table[table["remark"] != ""].sort_values("left_out_probability")
    return [f"rs = {rs:g}, T = {kelvin:g} K: {text}" for (rs, kelvin), text in rows["remark"].items()]


def gaps(points: Sequence[Point]) -> list[str]:
    """One line for the states that a grid lacks; none where the states are no grid."""
    known = {point.state for point in points}
    densities, kelvins = {state.rs for state in known}, {state.temperature_kelvin for state in known}
    missing = sorted({State(*pair) for pair in itertools.product(densities, kelvins)} - known)
    if not missing or len(missing) >= len(known):
        return []
    return [f"the grid has no state at {'; '.join(state.label for state in missing)}: the surface interpolates there"]


def hugoniot_lines(measured: pd.DataFrame) -> list[str]:
    """One line for each remark on the Hugoniot of measured E and P."""
    lines = []
    for text, rows in measured[measured["remark"] != ""].groupby("remark"):
        kelvins = ", ".join(f"{kelvin:g}" for kelvin in rows["temperature_kelvin"])
        lines.append(f"Hugoniot of measured E and P at {kelvins} K: {text}")
    return lines


def finite_size_lines(points: Sequence[Point], num_atoms: int) -> list[str]:
    """What F, E and P contain, and the states whose cell is too small for it."""
    states = [StatePoint(point.state.rs, point.state.temperature_kelvin) for point in points]
    densities = sorted({f"{one.rs:g}" for one in states if not holds_long_waves(one, num_atoms)}, key=float)
    lines = ["F, E and P contain two-body finite-size corrections, which are estimates without errors"]
    if densities:
        where = f"rs = {', '.join(densities)}"
        lines.append(f"N = {num_atoms} is too small for them at {where}: expect them to be too large")
    return lines


def _measured(point: Point) -> dict[str, Any]:
    (free_energy, energy, pressure), errors = point.values, np.sqrt(np.diag(point.covariance))
    entropy, entropy_error = point.entropy
    return {
        "volume": float(volume_per_atom(point.state.rs)),
        "free_energy_per_atom": free_energy,
        "free_energy_per_atom_error": errors[0] if math.isfinite(free_energy) else math.nan,
        "energy_per_atom": energy,
        "energy_per_atom_error": errors[1],
        "entropy_per_atom": entropy,
        "entropy_per_atom_error": entropy_error,
        "pressure_gpa": pressure * HARTREE_PER_BOHR3_TO_GPA,
        "pressure_gpa_error": errors[2] * HARTREE_PER_BOHR3_TO_GPA,
    }


def _derived(surface: Surface, point: Point) -> dict[str, float]:
    found: dict[str, float] = {}
    place = volume_per_atom(point.state.rs), kelvin_to_kT(point.state.temperature_kelvin)
    for name, (value, error, truncation) in surface_quantities(surface, *place).items():
        found |= {f"fit_{name}": float(value), f"fit_{name}_error": float(error)}
        found |= {f"fit_{name}_truncation": float(truncation)}
    return found


def _remark(point: Point, is_bad: bool, sigmas: np.ndarray, chance: float) -> str:
    parts = []
    if is_bad:
        large = [
            f"{symbol} by {value:+.1f} sigma"
            for symbol, value in zip(SYMBOLS, sigmas, strict=True)
            if abs(value) > LARGE
        ]
        parts.append(f"does not fit the other states: {', '.join(large) or f'p = {chance:.1g}'}")
    if not math.isfinite(point.values[0]):
        parts.append("F is not reported")
    if not point.converged:
        parts.append("not converged" if not point.reasons else f"not converged ({'; '.join(point.reasons)})")
    return "; ".join(parts)
