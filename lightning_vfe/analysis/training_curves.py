"""The terms of F along the training steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from lightning_vfe.analysis.run import RunFolder
from lightning_vfe.analysis.state_lines import StateLooks
from lightning_vfe.analysis.style import BLUE, GREY, VERMILION, curve_limits, heading, house_style, panel_grid
from lightning_vfe.analysis.terms import TERMS, value_with_error
from lightning_vfe.errors import SettingError

TRAINING_PANELS = (
    "free_energy_per_atom",
    "energy_per_atom",
    "entropy_per_atom",
    "kinetic_energy_per_atom",
    "v_pp_per_atom",
    "v_pe_per_atom",
    "v_ee_per_atom",
    "pressure_gpa",
    "local_energy_variance",
)
MARKED_STEPS = 40
"""A shorter run shows a mark for each of its steps."""


def draw_training(run: RunFolder, window: int | None = None) -> Figure:
    """Each term along the training steps: single steps, their running mean, and the result of `test` if there is one.

    The band is the standard error of a single step, averaged as the running mean is. What a run does not have, or what
    never changes (entropy and V_pp of fixed protons), gets no panel. Several states share the panels: each has a line,
    which is its running mean, and a mark behind the last step for its result.

    Args:
        run: the run.
        window: steps of the running mean; None takes a tenth of the run, at most 100.

    Raises:
        ValueError: window is not positive, or metrics.csv lacks a state.
    """
    steps = len(run.metrics)
    window = min(max(steps // 10, 1), 100) if window is None else window
    if window < 1:
        raise SettingError("window", window, "must be at least 1 step")
    views = run.views
    tables = [view.metrics for view in views]
    names = [name for name in TRAINING_PANELS if any(_varies(table, name) for table in tables)]
    has_one_energy = all(_same(table, "free_energy_per_atom", "energy_per_atom") for table in tables)
    is_ground_state = "entropy_per_atom" not in names and has_one_energy
    if is_ground_state:
        names = [name for name in names if name != "free_energy_per_atom"]
    if not names:
        raise ValueError(f"{run.folder / 'metrics.csv'} has no term of F; give the folder of a run made by fit")
    with house_style():
        figure, axes = panel_grid(len(names), 3, (3.7, 2.35))
        for name, panel in zip(names, axes, strict=True):
            if len(views) == 1:
                _draw_curve(panel, tables[0], name, window, _result(run, name))
            else:
                _draw_states(panel, views, name, window)
            panel.set_title(TERMS[name].title)
            panel.set_ylabel(TERMS[name].axis_unit)
        if is_ground_state and "energy_per_atom" in names:
            axes[names.index("energy_per_atom")].set_title("$E = F$  energy")
        for panel in axes[-3:]:
            panel.set_xlabel("training step")
        figure.suptitle(heading(run), x=0.01, ha="left", fontsize=10.5)
        if len(views) == 1:
            figure.legend(handles=_legend(window, _test_label(run)), loc="outside lower center", ncols=4)
        else:
            StateLooks(run.states).add_key(figure, axes, _states_legend(window, _test_label(run)))
    return figure


def _draw_curve(panel: Axes, metrics: pd.DataFrame, name: str, window: int, result: tuple[float, float] | None) -> None:
    """Steps, running mean with the error of a step, and the result of `test`."""
    step, values = metrics.index.to_numpy(), metrics[name].replace([np.inf, -np.inf], np.nan)
    mean = running_mean(values, window)
    if window > 1:
        panel.plot(step, values, color=BLUE, alpha=0.3, linewidth=0.6)
    panel.plot(step, mean, color=BLUE, linewidth=1.6, marker="." if len(step) < MARKED_STEPS else "")
    if f"{name}_error" in metrics:
        error = running_mean(metrics[f"{name}_error"], window)
        panel.fill_between(step, mean - error, mean + error, color=BLUE, alpha=0.18, linewidth=0)
    always: list[float] = []
    if result is not None:
        value, spread = result[0], np.nan_to_num(result[1])
        if np.isfinite(value):
            always = [value - spread, value + spread]
            panel.axhspan(*always, color=VERMILION, alpha=0.3, linewidth=0)
            panel.axhline(value, color=VERMILION, linewidth=1.0)
        text = value_with_error(*result)
        panel.text(1.0, 1.02, text, transform=panel.transAxes, ha="right", va="bottom", color=VERMILION, fontsize=8.5)
    limits = curve_limits([values.to_numpy(), mean.to_numpy()], always)
    if limits is not None:
        panel.set_ylim(limits)
    panel.margins(x=0.01)
    panel.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))


def _draw_states(panel: Axes, views: Sequence[RunFolder], name: str, window: int) -> None:
    """A running mean for each state with the error of a step, and a mark for its result."""
    looks = StateLooks([view.states[0] for view in views])
    curves, always = [], []
    for view in views:
        if name not in view.metrics:
            continue
        look, step = looks.of(view.states[0]), view.metrics.index.to_numpy()
        mean = running_mean(view.metrics[name].replace([np.inf, -np.inf], np.nan), window)
        curves.append(mean.to_numpy())
        marker = "." if len(step) < MARKED_STEPS else ""
        panel.plot(step, mean, color=look.color, linestyle=look.dashes, linewidth=1.2, marker=marker)
        if f"{name}_error" in view.metrics:
            error = running_mean(view.metrics[f"{name}_error"], window)
            panel.fill_between(
                step, mean - error, mean + error, color=look.color, alpha=0.06 if looks.has_bar else 0.12, linewidth=0
            )
        value, spread = _result(view, name) or (np.nan, np.nan)
        if np.isfinite(value):
            spread = float(np.nan_to_num(spread))
            behind = step[-1] + 0.04 * max(1, step[-1] - step[0])
            panel.errorbar(behind, value, spread, fmt="o", color=look.color, markersize=3.2, capsize=2)
            always += [value - spread, value + spread]
    limits = curve_limits(curves, always)
    if limits is not None:
        panel.set_ylim(limits)
    panel.margins(x=0.02)
    panel.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))


def running_mean(values: pd.Series, window: int) -> pd.Series:
    """Mean over a window of steps around each step."""
    return values.rolling(window, center=True, min_periods=1).mean()


def _varies(metrics: pd.DataFrame, name: str) -> bool:
    """Whether a term is there and is more than a constant; that of a single step counts unless it is zero."""
    if name not in metrics:
        return False
    values = metrics[name].to_numpy()
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return bool(values.any())
    return bool(np.ptp(values) > 1e-6 * np.abs(values).max())


def _same(metrics: pd.DataFrame, first: str, second: str) -> bool:
    return first in metrics and second in metrics and bool(np.allclose(metrics[first], metrics[second], equal_nan=True))


def _result(run: RunFolder, name: str) -> tuple[float, float] | None:
    """Result of `test` for a panel of the training."""
    if not run.tested:
        return None
    if name == "local_energy_variance":
        return float(run.summary.get("diagnostics", {}).get(name) or np.nan), np.nan
    return run.result(name)


def _test_label(run: RunFolder) -> str:
    """What the legend says of the result of `test`, with its step where the training has gone on; empty without one."""
    if not run.tested:
        return ""
    measured, trained = run.summary.get("step"), int(run.metrics.index[-1]) + 1
    step = f" at step {measured}" if measured is not None and measured < trained else ""
    return f"result of test{step} ± its error"


def _legend(window: int, test_label: str) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = []
    if window > 1:
        handles.append(Line2D([], [], color=BLUE, alpha=0.45, linewidth=0.8, label="one step"))
    handles += [
        Line2D([], [], color=BLUE, linewidth=1.6, label=f"mean of {window} steps" if window > 1 else "one step"),
        Patch(color=BLUE, alpha=0.18, linewidth=0, label="standard error of one step"),
    ]
    if test_label:
        handles.append(Patch(facecolor=VERMILION, alpha=0.45, label=test_label))
    return handles


def _states_legend(window: int, test_label: str) -> list[Any]:
    line = f"mean of {window} steps" if window > 1 else "one step"
    handles: list[Any] = [
        Line2D([], [], color=GREY, linewidth=1.2, label=line),
        Patch(color=GREY, alpha=0.18, linewidth=0, label="standard error of one step"),
    ]
    if test_label:
        handles.append(Line2D([], [], color=GREY, marker="o", markersize=3.2, linestyle="", label=test_label))
    return handles
