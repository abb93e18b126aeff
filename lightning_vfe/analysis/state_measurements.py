"""What `test` measured at several states: F, E, S and P along the states, and g(r) with a line for each state."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_vfe.analysis.run import RunFolder
from lightning_vfe.analysis.state_lines import HOLLOW, Look, StateGroups, StateLooks, is_trusted
from lightning_vfe.analysis.states import GROUND_STATES
from lightning_vfe.analysis.style import GREY, heading, house_style, panel_grid
from lightning_vfe.analysis.terms import TERMS

ALONG_STATES = ("free_energy_per_atom", "energy_per_atom", "entropy_per_atom", "pressure_gpa")
PAIR_TITLES = {
    "proton_proton": "protons",
    "proton_electron": "electrons around protons",
    "electron_electron_like": "electrons, like spins",
    "electron_electron_unlike": "electrons, unlike spins",
}


def draw_states(run: RunFolder) -> Figure:
    """F, E, S and P with one standard error as functions of rs, a line for each temperature.

    They are functions of T where rs is the same for all. Fixed protons have no S, and F = E.

    A hollow mark means that the run does not trust the number.

    Raises:
        FileNotFoundError: `test` has not run.
        ValueError: summary.json lacks a state.
    """
    views, groups = run.views, StateGroups(run.states)
    is_fixed = run.system.get("protons") in GROUND_STATES
    names = ("energy_per_atom", "pressure_gpa") if is_fixed else ALONG_STATES
    trusted = [is_trusted(view) for view in views]
    with house_style():
        figure, axes = panel_grid(len(names), 2, (3.9, 2.6))
        for panel, name in zip(axes, names, strict=True):
            found = [view.result(name) for view in views]
            groups.draw(panel, [value for value, _ in found], [error for _, error in found], trusted)
            panel.set_title("$E = F$  energy" if is_fixed and name == "energy_per_atom" else TERMS[name].title)
            panel.set_ylabel(TERMS[name].axis_unit)
        groups.add_key(figure, axes, [] if all(trusted) else [HOLLOW])
        figure.suptitle(heading(run), x=0.01, ha="left", fontsize=10.5)
    return figure


def draw_state_pairs(run: RunFolder) -> Figure:
    """g(r) of protons and electrons that `test` measured, with a line for each state; 1 means no correlation.

    The band is one standard error. The peaks of fixed protons are left out, and so are kinds without a pair.

    Raises:
        FileNotFoundError: `test` has not run.
        ValueError: pair_correlation.csv lacks a state.
    """
    states, looks = run.states, StateLooks(run.states)
    tables = [view.pair_correlation for view in run.views]
    hidden = "proton_proton" if run.system.get("protons") in GROUND_STATES else ""
    names = [name for name in PAIR_TITLES if name in tables[0] and name != hidden]
    if not names:
        raise ValueError(f"{run.folder / 'pair_correlation.csv'} has no kind of pairs; run lightning-vfe test again")
    with house_style():
        figure, axes = panel_grid(len(names), 2, (3.9, 2.6))
        for panel, name in zip(axes, names, strict=True):
            panel.axhline(1.0, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
            for state, table in zip(states, tables, strict=True):
                draw_pairs(panel, table, name, looks.of(state))
            panel.set_title(PAIR_TITLES[name])
            panel.set_xlim(0.0, max(table.index[-1] + table.index[0] for table in tables))
            panel.set_ylim(0.0, max(pair_top(table, [name]) for table in tables))
            panel.set_ylabel("$g(r)$")
        for panel in axes[-2:]:
            panel.set_xlabel("distance $r$ / bohr")
        looks.add_key(figure, axes)
        figure.suptitle(heading(run), x=0.01, ha="left", fontsize=10.5)
    return figure


def draw_pairs(panel: Axes, table: pd.DataFrame, name: str, look: Look, label: str | None = None) -> None:
    """g(r) of one kind of pairs as a line with a band of one standard error."""
    g = table[name]
    panel.plot(table.index, g, color=look.color, linestyle=look.dashes, linewidth=1.2, label=label)
    if f"{name}_error" in table:
        error = table[f"{name}_error"].fillna(0.0)
        panel.fill_between(table.index, g - error, g + error, color=look.color, alpha=0.15, linewidth=0)


def pair_top(table: pd.DataFrame, names: Sequence[str]) -> float:
    """Upper limit of g(r) that ignores the smallest distances, where few pairs make the errors large."""
    tops = [1.25]
    for name in names:
        g = table[name]
        error = table[f"{name}_error"].fillna(0.0) if f"{name}_error" in table else 0.0 * g
        known = error <= 0.15 * g.clip(lower=1.0)
        tops.append(float((g + error)[known if known.any() else g.notna()].max()))
    return 1.06 * max(tops)
