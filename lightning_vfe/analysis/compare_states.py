"""The figure of several runs of the same states: terms along the states, g(r) of the protons state by state."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lightning_vfe.analysis.run import RunFolder
from lightning_vfe.analysis.state_lines import COLORS, DASHES, HOLLOW, Look, StateGroups, math_label
from lightning_vfe.analysis.state_measurements import ALONG_STATES, draw_pairs, pair_top
from lightning_vfe.analysis.states import GROUND_STATES
from lightning_vfe.analysis.style import GREY, heading, house_style, panel_grid
from lightning_vfe.analysis.terms import TERMS

MOST_PROTON_PANELS = 6
"""With more states than this the figure shows no g(r): the figures of the runs do."""


def draw_state_comparison(runs: Mapping[str, RunFolder], table: pd.DataFrame) -> Figure:
    """F above the lowest one of each state, then F, E, S and P along the states, with one standard error.

    Each run has a colour, each temperature its dashes. Below them g(r) of the protons, one panel for each of up to six
    states.

    A hollow mark means that the run does not trust the number. Fixed protons have no S and no g(r).

    Args:
        runs: by the names that the legend shows.
        table: as `comparison_table` gives it.
    """
    first = next(iter(runs.values()))
    is_fixed, groups = first.system.get("protons") in GROUND_STATES, StateGroups(first.states)
    names = [name for name in ALONG_STATES if not (is_fixed and name in ("free_energy_per_atom", "entropy_per_atom"))]
    measured = [run for run in runs.values() if (run.folder / "pair_correlation.csv").is_file()]
    has_protons = not is_fixed and measured and len(first.states) <= MOST_PROTON_PANELS
    above, error = 1000.0 * table["above_lowest_f"], 1000.0 * table["free_energy_per_atom_error"]
    table = table.assign(above_lowest_f=above, above_lowest_f_error=error)  # mHa per atom
    with house_style():
        panels = 1 + len(names) + (len(first.states) if has_protons else 0)
        figure, axes = panel_grid(panels, 3, (3.7, 2.5))
        for panel, name in zip(axes, ("above_lowest_f", *names), strict=False):
            for number, label in enumerate(runs):
                rows = table.xs(label, level="run")
                look = Look(COLORS[number % len(COLORS)])
                groups.draw(panel, list(rows[name]), list(rows[f"{name}_error"]), list(rows["converged"]), look)
            if name in TERMS:
                panel.set_title("$E = F$  energy" if is_fixed and name == "energy_per_atom" else TERMS[name].title)
                panel.set_ylabel(TERMS[name].axis_unit)
            else:
                panel.set_title("$F$ above the lowest of its state")
                panel.set_ylabel("mHa / atom")
        if has_protons:
            _draw_protons(runs, figure, len(names) + 1)
        _add_key(figure, runs, groups, bool(table["converged"].all()))
        figure.suptitle(heading(first, with_verdict=False), x=0.01, ha="left", fontsize=10.5)
    return figure


def _draw_protons(runs: Mapping[str, RunFolder], figure: Figure, start: int) -> None:
    """A panel for each state of the first run, in the order of its states."""
    states = next(iter(runs.values())).states
    for panel, state in zip(figure.axes[start:], states, strict=True):
        panel.axhline(1.0, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
        tops = []
        for number, run in enumerate(runs.values()):
            if not (run.folder / "pair_correlation.csv").is_file():
                continue
            view = next(view for view in run.views if view.states[0].suffix == state.suffix)
            if "proton_proton" in view.pair_correlation:
                draw_pairs(panel, view.pair_correlation, "proton_proton", Look(COLORS[number % len(COLORS)]))
                tops.append(pair_top(view.pair_correlation, ["proton_proton"]))
        place = math_label("rs", state.rs) + ", " + math_label("temperature_kelvin", state.temperature_kelvin)
        panel.set_title(f"protons, {place}")
        panel.set_xlabel("distance $r$ / bohr")
        panel.set_ylabel("$g(r)$")
        panel.set_ylim(0.0, max(tops, default=1.0))


def _add_key(figure: Figure, runs: Mapping[str, RunFolder], groups: StateGroups, all_trusted: bool) -> None:
    handles = [
        Line2D([], [], color=COLORS[number % len(COLORS)], marker="o", markersize=4, label=label)
        for number, label in enumerate(runs)
    ]
    if 1 < len(groups.numbers) <= len(DASHES) and not groups.is_path:
        for number in groups.numbers:
            label = math_label(groups.other, number)
            handles.append(Line2D([], [], color="#333333", linestyle=groups.dashes(number), label=label))
    if not all_trusted:
        handles.append(HOLLOW)
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)))
