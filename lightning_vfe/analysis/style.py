"""One look for all figures: colours that colour-blind readers can tell apart, quiet axes, limits that fit the curve."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_vfe.analysis.run import RunFolder
from lightning_vfe.analysis.states import GROUND_STATES, is_hydrogen

# after Okabe and Ito's palette, with a darker purple
BLUE = "#0072B2"
VERMILION = "#D55E00"
GREEN = "#009E73"
PURPLE = "#AA4499"
ORANGE = "#E69F00"
GREY = "#6B6B6B"

SUBSTANCES = {"D": "deuterium", "T": "tritium"}

STYLE: dict[str, Any] = {
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "figure.dpi": 100.0,
}


def house_style() -> AbstractContextManager[None]:
    """Inside it, figures are drawn with STYLE; the user's own settings of matplotlib stay as they are."""
    settings: Any = STYLE  # matplotlib types its keys one by one
    return matplotlib.rc_context(settings)


def panel_grid(count: int, columns: int, panel_size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, row by row, without pyplot: no window, and nothing to close.

    Args:
        count: number of panels.
        columns: panels in a row.
        panel_size: width and height of a panel in inches.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(panel_size[0] * columns, panel_size[1] * rows + 0.6), layout="constrained")
    axes = [figure.add_subplot(rows, columns, number + 1) for number in range(count)]
    return figure, axes


def heading(run: RunFolder, with_verdict: bool = True) -> str:
    """What a run computed, and whether `test` trusts it: the line above a figure.

    Args:
        run: the run.
        with_verdict: say where the run is not converged.
    """
    system, states = run.system, run.states
    parts = [substance(system)]
    if "num_atoms" in system:
        parts.append(f"$N = {system['num_atoms']}$")
    if len(states) > 1:
        parts.append(f"{len(states)} states")
    temperatures = {state.temperature_kelvin for state in states}
    if "rs" in system:
        parts.append(f"$r_s = {system['rs']:g}$")
    elif len({state.rs for state in states}) == 1:
        parts.append(f"$r_s = {states[0].rs:g}$")
    if system.get("protons") in GROUND_STATES:
        parts.append("fixed protons" if system["protons"] == "fixed" else "jellium")
    elif "temperature_kelvin" in system:
        parts.append(f"$T = {system['temperature_kelvin']:g}$ K")
    elif len(temperatures) == 1 and states[0].temperature_kelvin:
        parts.append(f"$T = {states[0].temperature_kelvin:g}$ K")
    if not with_verdict or not run.tested:
        return ",  ".join(parts)
    doubtful = [not view.summary.get("converged", True) for view in run.views]
    if len(doubtful) > 1 and any(doubtful):
        parts.append(f"{sum(doubtful)} of {len(doubtful)} NOT CONVERGED (see summary.json)")
    elif not run.summary.get("converged", True):
        parts.append("NOT CONVERGED (see summary.json)")
    return ",  ".join(parts)


def substance(system: Mapping[str, Any]) -> str:
    """Dense hydrogen, or what it is called with other nuclei."""
    nucleus = system.get("nucleus", "H")
    if is_hydrogen(system) or not isinstance(nucleus, (int, float)):
        return f"dense {SUBSTANCES.get(nucleus, 'hydrogen')}"
    return f"dense hydrogen,  nuclear mass ${nucleus:g}$"


def curve_limits(curves: list[np.ndarray], always: list[float]) -> tuple[float, float] | None:
    """Limits that show all but the extreme values of curves along the steps, and wholly what `always` holds.

    They come from the curves without 1 % at either end and without the first 5 % of the steps, where untrained networks
    give wild values; towards these they open by half of that range at most.

    Args:
        curves: values along the steps.  # (steps,) each
        always: single values.

    Returns:
        Lower and upper limit; None where there is no number, or only one.
    """
    everything = _finite(curves)
    later = _finite([curve[len(curve) // 20 :] for curve in curves])
    edges = list(np.quantile(later, (0.01, 0.99))) if later.size else []
    edges += [value for value in always if np.isfinite(value)]
    if not edges or min(edges) == max(edges):
        return None
    low, high = float(min(edges)), float(max(edges))
    span = high - low
    if everything.size:
        low = min(low, max(low - 0.5 * span, float(everything.min())))
        high = max(high, min(high + 0.5 * span, float(everything.max())))
    margin = 0.06 * (high - low)
    return low - margin, high + margin


def _finite(curves: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([curve[np.isfinite(curve)] for curve in curves] + [np.empty(0)])
