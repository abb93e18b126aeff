"""Bound and estimate of the exact free energy: the entry of summary.json as lines and as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from lightning_vfe.analysis.folder import RunFolder
from lightning_vfe.analysis.states import GROUND_STATES
from lightning_vfe.analysis.terms import value_in_brackets

ROWS = {
    "upper_bound_per_atom": "F of this run, upper bound",
    "flow_gap_per_atom": "gap of the flow",
    "free_energy_of_psi_per_atom": "exact F of this psi",
    "psi_gap_per_atom": "gap of psi",
    "exact_free_energy_per_atom": "exact F, estimate",
    "v_score": "V-score",
}
"""Entries of `bracket` in summary.json that have a value, an error and a unit."""
OF_FIXED_PROTONS = ROWS | {
    "upper_bound_per_atom": "E of this run, upper bound",
    "exact_free_energy_per_atom": "exact E, estimate",
}


def bracket_lines(content: Mapping[str, Any], is_fixed: bool = False) -> list[str]:
    """One line for each part of the bracket.

    Args:
        content: the entry `bracket` of summary.json.
        is_fixed: whether the protons are fixed: F = E, and p(x) has no gap.
    """
    lines = []
    for key, title in (OF_FIXED_PROTONS if is_fixed else ROWS).items():
        entry = content[key]
        if is_fixed and key in ("flow_gap_per_atom", "free_energy_of_psi_per_atom"):
            continue
        if entry["value"] is None:
            lines.append(f"{title}: not given: {entry['note']}")
        else:
            lines.append(f"{title}: {_number(entry)}" + (f" ({entry['note']})" if entry["note"] else ""))
    return lines


def short_line(content: Mapping[str, Any]) -> str:
    """Both gaps and the estimate in one line, for many states; `-` stands for what is not given."""
    names = ("flow_gap_per_atom", "psi_gap_per_atom", "exact_free_energy_per_atom")
    gap, psi, exact = ("-" if content[name]["value"] is None else _number(content[name]) for name in names)
    return f"gap of the flow {gap}, gap of psi {psi}, exact F, estimate {exact}"


def exact_free_energy(summary: Mapping[str, Any]) -> tuple[float, float]:
    """The estimate of the exact F with its error, Ha per atom; nan where a summary of one state has none."""
    bracket = summary.get("bracket")
    return _pair(bracket["exact_free_energy_per_atom"]) if isinstance(bracket, Mapping) else (math.nan, math.nan)


def _pair(entry: Mapping[str, Any]) -> tuple[float, float]:
    value, error = (math.nan if entry[part] is None else float(entry[part]) for part in ("value", "error"))
    return value, error


def _number(entry: Mapping[str, Any]) -> str:
    return f"{value_in_brackets(*_pair(entry))} {entry['unit']}".rstrip()


def bracket_table(run: RunFolder) -> pd.DataFrame:
    """The bracket of a run: a row for each part with quantity, value, error, unit and note.

    The index is the name in summary.json. With several states, `rs` and `temperature_kelvin` are the first two levels
    of the index. The error is one standard error. A part that cannot be given is nan, and its note says why.

    Raises:
        FileNotFoundError: `test` has not run.
        ValueError: summary.json holds no bracket.
    """
    if len(run.states) > 1:
        blocks = {(view.states[0].rs, view.states[0].temperature_kelvin): bracket_table(view) for view in run.views}
        return pd.concat(blocks, names=["rs", "temperature_kelvin"])
    content = run.summary.get("bracket")
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{run.folder / 'summary.json'} holds no bracket; write it with: lightning-vfe test run_dir={run.folder}"
        )
    rows = {}
    is_fixed = run.system.get("protons") in GROUND_STATES
    for key, title in (OF_FIXED_PROTONS if is_fixed else ROWS).items():
        entry = content[key]
        rows[key] = (title, *_pair(entry), entry["unit"], entry["note"])
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["quantity", "value", "error", "unit", "note"])
    return table.rename_axis("term")
