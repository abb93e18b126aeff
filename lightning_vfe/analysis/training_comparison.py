"""The training curves of several runs in one figure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lightning_vfe.analysis.compare import COLORS
from lightning_vfe.analysis.run import RunFolder
from lightning_vfe.analysis.style import curve_limits, house_style, panel_grid
from lightning_vfe.analysis.terms import TERMS
from lightning_vfe.analysis.training_curves import running_mean

SHOWN = ("free_energy_per_atom", "energy_per_atom", "entropy_per_atom", "local_energy_variance")
DASHES = ("-", "--", ":", "-.")
"""Of the states of a run, in turns."""


def draw_training_comparison(runs: Mapping[str, RunFolder]) -> Figure:
    """F, E, S and the variance of E_loc along the training: a colour for each run, with its result as a mark.

    Several states of a run have the same colour and other dashes. The running mean takes a tenth of the run, at most
    100 steps.

    Args:
        runs: by their names; each has a metrics.csv.
    """
    tables = {name: [view.metrics for view in run.views] for name, run in runs.items()}
    names = [term for term in SHOWN if any(term in table for views in tables.values() for table in views)]
    with house_style():
        figure, axes = panel_grid(len(names), 2, (4.6, 2.6))
        for term, panel in zip(names, axes, strict=True):
            _draw(panel, runs, term)
        for panel in axes[-2:]:
            panel.set_xlabel("training step")
        handles = [
            Line2D([], [], color=COLORS[i % len(COLORS)], linewidth=1.6, label=name) for i, name in enumerate(runs)
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)))
    return figure


def _draw(panel: Axes, runs: Mapping[str, RunFolder], term: str) -> None:
    curves, always = [], []
    for place, run in enumerate(runs.values()):
        for number, view in enumerate(run.views):
            if term not in view.metrics:
                continue
            color, steps = COLORS[place % len(COLORS)], view.metrics.index.to_numpy()
            window = min(max(len(steps) // 10, 1), 100)
            mean = running_mean(view.metrics[term].replace([np.inf, -np.inf], np.nan), window)
            curves.append(mean.to_numpy())
            panel.plot(steps, mean, color=color, linestyle=DASHES[number % len(DASHES)], linewidth=1.4)
            value, error = view.result(term) if view.tested else (np.nan, np.nan)
            if np.isfinite(value):
                spread = float(np.nan_to_num(error))
                panel.errorbar(view.summary.get("step") or steps[-1], value, spread, fmt="o", color=color, capsize=2)
                always += [value - spread, value + spread]
    limits = curve_limits(curves, always)
    if limits is not None:
        panel.set_ylim(limits)
    panel.set_title(TERMS[term].title)
    panel.set_ylabel(TERMS[term].axis_unit)
    panel.margins(x=0.02)
