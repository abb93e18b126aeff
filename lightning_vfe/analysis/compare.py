"""Several runs of the same state, or of the same states, side by side: one table and one figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_vfe.analysis.bracket import exact_free_energy
from lightning_vfe.analysis.compare_states import draw_state_comparison
from lightning_vfe.analysis.run import RunFolder
from lightning_vfe.analysis.state_lines import Look
from lightning_vfe.analysis.state_measurements import draw_pairs
from lightning_vfe.analysis.style import BLUE, GREEN, GREY, PURPLE, VERMILION, house_style, panel_grid, substance
from lightning_vfe.analysis.terms import TERMS

COMPARED = ("free_energy_per_atom", "energy_per_atom", "entropy_per_atom", "pressure_gpa")
"""What the table and the figure show, by the names of summary.json."""
EXACT = "exact_free_energy_per_atom"
"""The estimate of the exact F, where `test` could give one."""
COMMON: dict[str, Any] = {"num_atoms": None, "nucleus": "H"}
"""What all runs must share besides their states, and what holds where a folder does not say it."""
STATE = ("rs", "temperature_kelvin")
COLORS = (BLUE, VERMILION, GREEN, PURPLE, GREY)


def check_same_state(runs: Mapping[str, RunFolder], any_size: bool = False) -> None:
    """Only runs of one system can be compared, and of the same states in any order.

    Args:
        runs: by their names.
        any_size: whether runs of a single state may differ in the number of atoms.

    Raises:
        ValueError: no run at all, or two of different num_atoms, nuclei, or states.
    """
    if not runs:
        raise ValueError("runs = [] names no run; give folders, for example runs=[runs/default,runs/default-2]")
    (first_label, first), *others = runs.items()
    for label, run in others:
        several = max(len(first.states), len(run.states)) > 1
        keys = COMMON | ({"protons": "sampled"} if several else dict.fromkeys(STATE))
        if any_size and not several:
            del keys["num_atoms"]
        systems = first.system, run.system
        for key, default in keys.items():
            one, other = (system.get(key, default) for system in systems)
            if one != other:
                what = "the same system" if several else "one state point"
                raise ValueError(
                    f"runs: system.{key} is {one} in {first_label} but {other} in {label}; compare runs of {what}"
                )
        if several:
            _check_states(first_label, first, label, run)


def _check_states(first_label: str, first: RunFolder, label: str, run: RunFolder) -> None:
    for holder, one, lacker, other in ((first_label, first, label, run), (label, run, first_label, first)):
        known = {state.suffix for state in other.states}
        missing = [state.label for state in one.states if state.suffix not in known]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise ValueError(
                f"runs: {holder} holds the state {missing[0]}{more} but {lacker} does not; "
                "compare runs of the same states"
            )


def comparison_table(runs: Mapping[str, RunFolder]) -> pd.DataFrame:
    """A row for each run: F, E, S, P with their errors, F minus the lowest F, and whether the run trusts itself.

    Args:
        runs: by the names that the table shows.

    Returns:
        Columns NAME and NAME_error for each of COMPARED (nan where a run does not report it), above_lowest_f in Ha per
        atom, and converged. Where a run has an estimate of the exact F, also exact_free_energy_per_atom and its error.
        The index is the run; with several states it is rs, temperature_kelvin and the run, and
        the lowest F is that of the state.

    Raises:
        ValueError: the runs are not of one system, or not of the same states.
        FileNotFoundError: a run has no summary.json.
    """
    check_same_state(runs)
    states = next(iter(runs.values())).states
    if len(states) <= 1:
        return _state_table(runs)
    blocks = {}
    for state in states:
        views = {label: _view(run, state.suffix) for label, run in runs.items()}
        blocks[state.rs, state.temperature_kelvin] = _state_table(views)
    return pd.concat(blocks, names=["rs", "temperature_kelvin"])


def _view(run: RunFolder, suffix: str) -> RunFolder:
    return next(view for view in run.views if view.states[0].suffix == suffix)


def _state_table(runs: Mapping[str, RunFolder]) -> pd.DataFrame:
    """The rows of one state."""
    rows = []
    for run in runs.values():
        row: dict[str, object] = {}
        for name in COMPARED:
            row[name], row[f"{name}_error"] = run.result(name)
        row[EXACT], row[f"{EXACT}_error"] = exact_free_energy(run.summary)
        row["trained"] = (run.summary.get("verdicts") or {}).get("training", {}).get("ok")
        rows.append(row | {"converged": bool(run.summary.get("converged", False))})
    table = pd.DataFrame(rows, index=pd.Index(list(runs), name="run"))
    if table[EXACT].isna().all():
        table = table.drop(columns=[EXACT, f"{EXACT}_error"])
    free_energy = table["free_energy_per_atom"]
    table.insert(2, "above_lowest_f", free_energy - free_energy.min())
    return table


def draw_comparison(runs: Mapping[str, RunFolder]) -> Figure:
    """F, E, S, P of every run with one standard error, and g(r) of the protons on top of each other.

    A hollow mark means that the run does not trust the number. With several states the terms are drawn along the
    states (compare_states.py).

    Raises:
        ValueError: the runs are not of one system, or not of the same states.
        FileNotFoundError: a run has no summary.json.
    """
    table = comparison_table(runs)
    first = next(iter(runs.values()))
    if len(first.states) > 1:
        return draw_state_comparison(runs, table)
    pairs = {label: run for label, run in runs.items() if (run.folder / "pair_correlation.csv").is_file()}
    with house_style():
        figure, axes = panel_grid(len(COMPARED) + bool(pairs), 3, (3.7, 0.9 + 0.35 * max(4, len(runs))))
        for number, (panel, name) in enumerate(zip(axes, COMPARED, strict=False)):
            _draw_values(panel, table, name, with_labels=number % 3 == 0)
        if pairs:
            draw_protons(axes[-1], pairs, list(runs))
        system = first.system
        title = f"{substance(system)},  $N = {system['num_atoms']}$,  $r_s = {system['rs']:g}$"
        title += f",  $T = {system.get('temperature_kelvin', 0.0):g}$ K"
        figure.suptitle(title, x=0.01, ha="left", fontsize=10.5)
    return figure


def _draw_values(panel: Axes, table: pd.DataFrame, name: str, with_labels: bool) -> None:
    for place, (value, error, trusted) in enumerate(
        zip(table[name], table[f"{name}_error"], table["converged"], strict=True)
    ):
        if not np.isfinite(value):
            continue
        color = COLORS[place % len(COLORS)]
        panel.errorbar(
            value, place, xerr=error, fmt="o", color=color, markersize=5, capsize=3, mfc=color if trusted else "white"
        )
    panel.set_yticks(range(len(table)), list(table.index) if with_labels else [""] * len(table))
    panel.set_ylim(len(table) - 0.5, -0.5)
    panel.margins(x=0.15)
    panel.locator_params(axis="x", nbins=5)
    panel.set_title(TERMS[name].title)
    panel.set_xlabel(TERMS[name].axis_unit)


def draw_protons(panel: Axes, pairs: Mapping[str, RunFolder], labels: list[str]) -> None:
    """g(r) of the protons of several runs, each with the colour of its place among all labels."""
    panel.axhline(1.0, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
    for label, run in pairs.items():
        look = Look(COLORS[labels.index(label) % len(COLORS)])
        draw_pairs(panel, run.pair_correlation, "proton_proton", look, label)
    panel.set_title("protons")
    panel.set_xlabel("distance $r$ / bohr")
    panel.set_ylabel("$g(r)$")
    panel.set_ylim(bottom=0.0)
    panel.legend(fontsize=7.5)
