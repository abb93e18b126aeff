"""What `test` measured: how the terms add up to F, and g(r)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_vfe.analysis.run import RunFolder
from lightning_vfe.analysis.state_measurements import draw_state_pairs, draw_states, pair_top
from lightning_vfe.analysis.states import GROUND_STATES
from lightning_vfe.analysis.style import BLUE, GREEN, GREY, PURPLE, VERMILION, heading, house_style, panel_grid
from lightning_vfe.analysis.terms import TERMS, value_with_error
from lightning_vfe.physics.units import KELVIN_TO_HARTREE

CONTRIBUTIONS = ("kinetic_energy_per_atom", "v_pp_per_atom", "v_pe_per_atom", "v_ee_per_atom")
PAIRS = {
    "proton_proton": ("proton-proton", BLUE, "o"),
    "proton_electron": ("proton-electron", GREEN, "o"),
    "electron_electron_like": ("like spins", VERMILION, "o"),
    "electron_electron_unlike": ("unlike spins", PURPLE, "s"),
}
PAIR_PANELS = {
    "protons": ("proton_proton",),
    "electrons around protons": ("proton_electron",),
    "electrons": ("electron_electron_like", "electron_electron_unlike"),
}


def draw_terms(run: RunFolder) -> Figure:
    """How the terms that `test` measured add up to E and F: each as a bar from where the one before it ended.

    Error bars are one standard error; the terms' errors are correlated and do not add up. With several states the
    figure shows F, E, S and P along the states instead (draw_states).

    Raises:
        FileNotFoundError: `test` has not run.
    """
    if len(run.states) > 1:
        return draw_states(run)
    bars = [(TERMS[name].symbol, *run.result(name), False) for name in CONTRIBUTIONS]
    bars.append((TERMS["energy_per_atom"].symbol, *run.result("energy_per_atom"), True))
    kT = KELVIN_TO_HARTREE * float(run.system.get("temperature_kelvin", 0.0))
    if kT > 0:
        entropy, entropy_error = run.result("entropy_per_atom")
        bars.append(("$-TS$", -kT * entropy, kT * entropy_error, False))
        bars.append((TERMS["free_energy_per_atom"].symbol, *run.result("free_energy_per_atom"), True))
    bars = [bar for bar in bars if np.isfinite(bar[1])]  # F and S are not reported where the flow folds space
    with house_style():
        figure, (panel,) = panel_grid(1, 1, (6.8, 3.3))
        level = 0.0
        for place, (_, value, error, is_total) in enumerate(bars):
            start = 0.0 if is_total else level
            level = start + value
            color = VERMILION if value > 0 else BLUE
            _draw_bar(panel, place, start, level, error, GREY if is_total else color)
            if place < len(bars) - 1:
                panel.plot([place + 0.31, place + 0.69], [level, level], color=GREY, linewidth=0.7)
        panel.axhline(0.0, color="#333333", linewidth=0.8)
        panel.set_xticks(range(len(bars)), [symbol for symbol, *_ in bars])
        panel.tick_params(axis="x", length=0, labelsize=11)
        panel.grid(False, axis="x")
        panel.margins(y=0.12)
        panel.set_ylabel(TERMS["energy_per_atom"].axis_unit)
        figure.suptitle(heading(run), x=0.01, ha="left", fontsize=10.5)
    return figure


def draw_pair_correlation(run: RunFolder) -> Figure:
    """g(r) of protons and electrons that `test` measured, with one standard error; 1 means no correlation.

    The peaks of fixed protons are left out, and so are kinds without a pair. With several states each kind has a panel,
    and each state a line in it.

    Raises:
        FileNotFoundError: `test` has not run.
    """
    if len(run.states) > 1:
        return draw_state_pairs(run)
    table = run.pair_correlation
    is_fixed = run.system.get("protons") in GROUND_STATES
    panels = {title: [name for name in names if name in table] for title, names in PAIR_PANELS.items()}
    shown = {title: names for title, names in panels.items() if names and not (is_fixed and title == "protons")}
    if not shown:
        raise ValueError(f"{run.folder / 'pair_correlation.csv'} has no kind of pairs; run lightning-vfe test again")
    with house_style():
        figure, axes = panel_grid(len(shown), 3, (3.7, 2.6))
        for panel, (title, names) in zip(axes, shown.items(), strict=True):
            panel.axhline(1.0, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
            for name in names:
                _draw_pairs(panel, table, name)
            is_part = len(names) < len(PAIR_PANELS[title])
            panel.set_title(f"{title}, {PAIRS[names[0]][0]}" if is_part else title)
            panel.set_xlabel("distance $r$ / bohr")
            panel.set_xlim(0.0, table.index[-1] + table.index[0])
            panel.set_ylim(0.0, pair_top(table, names))
            if len(names) > 1:
                panel.legend(loc="lower right")
        axes[0].set_ylabel("$g(r)$")
        figure.suptitle(heading(run), x=0.01, ha="left", fontsize=10.5)
    return figure


def _draw_bar(panel: Axes, place: int, start: float, end: float, error: float, color: str) -> None:
    """A bar from start to end with the error at its end, and the difference written above it."""
    panel.bar(place, end - start, 0.62, bottom=start, color=color, alpha=0.85)
    if np.isfinite(error):
        panel.errorbar(place, end, error, color="black", linewidth=1.1, capsize=3)
    text = value_with_error(end - start, error).replace(" \N{PLUS-MINUS SIGN}", "\n\N{PLUS-MINUS SIGN}")
    top = (place, max(start, end))
    label = panel.annotate(text, top, (0, 5), textcoords="offset points", ha="center", va="bottom", fontsize=8.0)
    label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.8})


def _draw_pairs(panel: Axes, table: pd.DataFrame, name: str) -> None:
    label, color, marker = PAIRS[name]
    errors = table.get(f"{name}_error", None)
    # the line only leads the eye: pale, so that scatter at small distances stays readable
    panel.plot(table.index, table[name], color=color, linewidth=1.0, alpha=0.4)
    panel.errorbar(
        table.index, table[name], errors, color=color, label=label, fmt=marker, markersize=2.8, elinewidth=0.8
    )
