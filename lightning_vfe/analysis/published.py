"""Published values that stand nearest to a run, in one line each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from lightning_vfe.analysis.states import State, is_hydrogen
from lightning_vfe.resources import resource_folder

MOST_LINES = 2
"""Published rows of one state: the nearest one of each method."""
FARTHEST = {"rs": 0.03, "T_kelvin": 0.2}
"""Largest relative difference of a row that is called near."""
MANY_TWISTS = 1000.0
"""What counts for the number of twists of an average without a given grid, or with finite-size corrections."""
WEIGHTS = {"rs": 100.0, "T_kelvin": 10.0, "N": 1.0, "twists": 0.5}
"""Of the differences of the logarithms, in the order of their effect on the energy."""
DIGITS = {"F": 4, "E": 4, "S": 2, "P": 0}
UNITS = {"F": "Ha/atom", "E": "Ha/atom", "S": "k_B/atom", "P": "GPa"}


def literature_table() -> pd.DataFrame:
    """data/literature.csv: published values per atom, E, F, K, V in Ha, S in k_B, P in GPa; sources in its head."""
    return pd.read_csv(resource_folder("data") / "literature.csv", comment="#")


def nearest_published(
    system: Mapping[str, Any], state: State, num_twists: float, structure: str = ""
) -> list[dict[str, Any]]:
    """The published rows that are nearest to a run at one state, at most one of each method.

    Near is a density within 3 % and a temperature within 20 %. Fixed protons have to be in the same structure.

    Args:
        system: with num_atoms and nucleus; F and S hold for hydrogen, and are left out for other nuclei.
        state: density and temperature, 0 for fixed protons.
        num_twists: twists of the average; 1 is Gamma, infinity are random twists, nan is another single twist.
        structure: of fixed protons.

    Returns:
        Rows, the nearest first: method, system, rs, T_kelvin, N, twists, what is known of F, E, S and P, and `differs`,
        the columns in which the row is not the run.
    """
    table, is_fixed = literature_table(), state.temperature_kelvin == 0
    table = table[(table["T_kelvin"] == 0) == is_fixed]
    if is_fixed:
        table = table[table["system"] == structure]
    if not is_hydrogen(system):
        table = table.assign(F=math.nan, S=math.nan)
    own = {"rs": state.rs, "T_kelvin": state.temperature_kelvin, "N": float(system["num_atoms"])}
    own["twists"] = min(float(num_twists), MANY_TWISTS)
    rows = [_row(row, own) for row in table.to_dict("records")]
    near = sorted((row for row in rows if row is not None), key=lambda row: row["distance"])
    best: dict[str, dict[str, Any]] = {}
    for row in near:
        best.setdefault(row["method"], row)
    found = list(best.values())[:MOST_LINES]
    return [{name: value for name, value in row.items() if name != "distance"} for row in found]


def _row(row: Mapping[Any, Any], own: Mapping[str, float]) -> dict[str, Any] | None:
    """A published row with its distance from the run; None where it is far or has none of the values."""
    values = {name: float(row[name]) for name in UNITS if math.isfinite(row[name])}
    theirs = {"rs": float(row["rs"]), "T_kelvin": float(row["T_kelvin"]), "N": float(row["N"])}
    twists = str(row["twists"])
    theirs["twists"] = float(twists) if twists.isdigit() else MANY_TWISTS
    differences = {name: _difference(theirs[name], own[name]) for name in theirs}
    if not values or any(differences[name] > limit for name, limit in FARTHEST.items()):
        return None
    shown = {"method": row["method"], "system": row["system"], "rs": theirs["rs"], "T_kelvin": theirs["T_kelvin"]}
    shown["N"] = int(theirs["N"]) if math.isfinite(theirs["N"]) else None
    shown["twists"] = None if twists == "nan" else twists
    distance = sum(WEIGHTS[name] * min(difference, 10.0) for name, difference in differences.items())
    differs = [name for name, difference in differences.items() if difference > 1e-6]
    return {**shown, **values, "differs": differs, "distance": distance}


def _difference(one: float, other: float) -> float:
    """Of the logarithms; large for what is not finite."""
    if one == other:
        return 0.0
    if not (one > 0 and other > 0 and math.isfinite(one) and math.isfinite(other)):
        return math.inf
    return abs(math.log(one / other))


def published_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each row of `nearest_published`."""
    lines = []
    for row in rows:
        atoms = "infinite N" if row["N"] is None else f"N = {row['N']}"
        place = f"rs = {row['rs']:g}" + (f", {row['T_kelvin']:g} K" if row["T_kelvin"] else "")
        values = ", ".join(f"{name} = {row[name]:.{DIGITS[name]}f} {UNITS[name]}" for name in UNITS if name in row)
        twists = {None: "", "1": ", Gamma", "TABC": ", twist averaged"}.get(row["twists"], f", {row['twists']} twists")
        other = [{"T_kelvin": "T"}.get(name, name) for name in row["differs"]]
        note = f" (other {' and '.join(other)})" if other else ""
        lines.append(f"published: {row['method']}, {place}, {atoms}{twists}: {values}{note}")
    return lines
