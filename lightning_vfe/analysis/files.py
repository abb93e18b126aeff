"""The files of a run folder: reading each of them, and taking out of them what belongs to one state."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from lightning_vfe.analysis.states import GROUND_STATES, SEPARATOR, State, check_distinct, split_column, state_suffix
from lightning_vfe.files import CHECKSUM, has_changed, has_changed_text, row_has_changed

_COPY = "take an older copy, or move it away: a run continues without it"
_DELETE_CONFIG = "delete it: the checkpoint holds a copy, and key=value on the command line changes settings"


def read_config(file: Path) -> dict[str, Any]:
    """config.yaml with every reference inside it resolved.

    Raises:
        ValueError: it is damaged, or has no settings of a system.
    """
    try:
        text = file.read_text(encoding="utf-8")
        content: Any = OmegaConf.to_container(OmegaConf.create(text), resolve=True)
    except Exception as error:  # of YAML or of a reference: each library has its own
        raise ValueError(f"{file} cannot be read: {' '.join(str(error).split())}; {_DELETE_CONFIG}") from error
    if has_changed_text(text):
        raise ValueError(f"{file} is damaged (it does not have its checksum); {_DELETE_CONFIG}")
    if not isinstance(content, dict) or not isinstance(content.get("system"), dict):
        raise ValueError(f"{file} has no settings of a system; give the folder of a run made by fit")
    return content


def read_summary(file: Path) -> dict[str, Any]:
    """summary.json.

    Raises:
        ValueError: it is damaged, or no summary.
    """
    again = f"lightning-vfe test run_dir={file.parent}"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error}); write it again with: {again}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} is no summary; write it with: {again}")
    reason = "it does not have its checksum" if has_changed(content) else _damage(content)
    if reason:
        raise ValueError(f"{file} is damaged ({reason}); write it again with: {again}")
    return content


def _damage(summary: Mapping[str, Any]) -> str:
    """What in a summary without a checksum has another type than `test` writes; empty if nothing has."""
    kinds = {"system": dict, "diagnostics": dict, "converged": bool, "reasons": list}
    for name, kind in kinds.items():
        if not isinstance(summary.get(name), kind | None):
            return f"{name} is no {kind.__name__}"
    states = summary.get("states")
    entries = [summary, *(states if isinstance(states, list) else ())]
    for entry in entries:
        for name, term in entry.items() if isinstance(entry, dict) else ():
            numbers = [term.get("value"), term.get("error")] if isinstance(term, dict) and "value" in term else []
            if not all(isinstance(number, int | float | None) for number in numbers):
                return f"{name} is no number with its error"
    return ""


def read_table(file: Path, column: str) -> pd.DataFrame:
    """A CSV file of numbers; a last line that has no end, as a killed process leaves it, is left out.

    So is the column CHECKSUM, with which each row is compared.

    Raises:
        ValueError: it is damaged, or has not the column.
    """
    try:
        text = file.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        table = pd.read_csv(io.StringIO(whole))
        header, *rows = csv.reader(io.StringIO(whole), strict=True)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file} is damaged ({' '.join(str(error).split())}); {_COPY}") from error
    table = table.drop(columns=CHECKSUM, errors="ignore")
    if column not in table:
        raise ValueError(f"{file} has no column {column}; give the folder of a run, or {_COPY}")
    text_columns = [name for name in table if not pd.api.types.is_numeric_dtype(table[name])]
    if text_columns:
        raise ValueError(f"{file} is damaged (column {text_columns[0]} holds more than numbers); {_COPY}")
    short = [number for number, row in enumerate(rows, start=2) if row and len(row) != len(header)]
    if short:
        raise ValueError(f"{file} is damaged (line {short[0]} has not as many values as columns); {_COPY}")
    cells = (dict(zip(header, row, strict=False)) for row in rows)
    changed = [number for number, row in enumerate(cells, start=2) if row_has_changed(row)]
    if changed:
        raise ValueError(f"{file} is damaged (line {changed[0]} does not have its checksum); {_COPY}")
    return table


def read_metrics(file: Path) -> pd.DataFrame:
    """metrics.csv: a row for each time that a step was logged.

    Raises:
        ValueError: it is damaged, or its steps are not whole numbers in their order.
    """
    table = read_table(file, "step")
    steps = table["step"]
    if len(table) and not (pd.api.types.is_integer_dtype(steps) and steps.iloc[0] >= 0):
        raise ValueError(f"{file} is damaged (column step holds more than whole numbers); {_COPY}")
    if not steps.is_monotonic_increasing:
        line = int(steps.diff().lt(0).to_numpy().argmax()) + 2
        raise ValueError(f"{file} is damaged (the steps are not in order at line {line}); {_COPY}")
    return table


def summary_states(summary: Mapping[str, Any], file: Path) -> tuple[State, ...]:
    """The states that a summary of several states holds, in its order; none in that of a single state.

    Raises:
        ValueError: an entry of a state is damaged.
    """
    entries = summary.get("states")
    if entries is None:
        return ()
    try:
        is_fixed = summary.get("system", {}).get("protons") in GROUND_STATES
        temperatures = [0.0 if is_fixed else float(entry.get("temperature_kelvin") or 0.0) for entry in entries]
        pairs = zip(entries, temperatures, strict=True)
        return check_distinct(State(float(entry["rs"]), temperature) for entry, temperature in pairs)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        again = f"write it again with: lightning-vfe test run_dir={file.parent}"
        raise ValueError(f"{file} is damaged (states: {error}); {again}") from error


def metrics_states(columns: list[str], file: Path) -> tuple[State, ...]:
    """The states that the columns of metrics.csv name, in their order.

    Raises:
        ValueError: a suffix names no state.
    """
    try:
        found = [split_column(column)[1] for column in columns]
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error}); {_COPY}") from error
    return tuple(dict.fromkeys(state for state in found if state is not None))


def state_columns(metrics: pd.DataFrame, state: State, file: Path) -> pd.DataFrame:
    """The columns that all states have in common, and those of one state without its suffix.

    Raises:
        ValueError: the state has no column.
    """
    suffix = SEPARATOR + state.suffix
    own = {name: name.removesuffix(suffix) for name in metrics if name.endswith(suffix)}
    if not own:
        raise ValueError(f"{file} has no column of {state.label} (free_energy_per_atom{suffix}); take an older copy")
    common = [name for name in metrics if SEPARATOR not in name and name not in own.values()]
    return metrics[[*common, *own]].rename(columns=own)


def state_rows(table: pd.DataFrame, state: State, file: Path) -> pd.DataFrame:
    """g(r) or S(k) of one state: its block of rows in a file of several states.

    Raises:
        ValueError: the state has no block, or the file is that of a single state.
    """
    again = f"write it again with: lightning-vfe test run_dir={file.parent}"
    if "rs" not in table:
        raise ValueError(f"{file} has no column rs, which a run of several states needs; {again}")
    rows = table["rs"].map(lambda rs: state_suffix(rs, None)) == state_suffix(state.rs, None)
    if state.temperature_kelvin and "temperature_kelvin" in table:
        rows &= table["temperature_kelvin"].map(lambda kelvin: f"{kelvin:g}") == f"{state.temperature_kelvin:g}"
    if not rows.any():
        raise ValueError(f"{file} has no rows of {state.label}; {again}")
    return table[rows].drop(columns=["rs", "temperature_kelvin"], errors="ignore")


def state_summary(summary: Mapping[str, Any], state: State, file: Path) -> dict[str, Any]:
    """The summary of one state out of that of several, in the form that a run of a single state has.

    The diagnostics are those that all states have in common with the state's own. A state is converged where neither
    the state nor what all states have in common gives a reason against it.

    Raises:
        ValueError: the state is not there.
    """
    own: dict[str, Any] = {}
    entries: list[dict[str, Any]] = summary.get("states") or []
    for entry, found in zip(entries, summary_states(summary, file), strict=True):
        if found.suffix == state.suffix:
            own = dict(entry)
    if not own:
        again = f"write it again with: lightning-vfe test run_dir={file.parent}"
        raise ValueError(f"{file} has no result of {state.label}; {again}")
    place = {"rs": own.pop("rs"), "temperature_kelvin": state.temperature_kelvin}
    of_states = [reason for entry in entries for reason in entry.get("reasons") or []]
    common = [text for text in summary.get("reasons") or [] if not any(reason in text for reason in of_states)]
    own.pop("temperature_kelvin", None)
    return own | {
        "system": summary.get("system", {}) | place,
        "step": summary.get("step"),
        "verdicts": summary.get("verdicts") or {},
        "diagnostics": (summary.get("diagnostics") or {}) | (own.get("diagnostics") or {}),
        "converged": bool(own.get("converged", summary.get("converged", True))) and not common,
        "reasons": [*(own.get("reasons") or []), *common],
    }
