"""Parity plots of a fitted potential: what it predicts against the labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from lightning_vfe.analysis.style import BLUE, GREEN, GREY, VERMILION, house_style, panel_grid

PREDICTIONS = "predictions.npz"
FILE_DPI = 160
# name in the file: title, unit, unit of the error, factor to it, colour
PANELS = {
    "energy_per_atom": ("energy per atom", "Ha/atom", "mHa/atom", 1e3, BLUE),
    "force": ("force components", "Ha/bohr", "mHa/bohr", 1e3, VERMILION),
    "pressure_gpa": ("pressure", "GPa", "GPa", 1.0, GREEN),
}


def draw_parity(predictions: dict[str, np.ndarray]) -> Figure:
    """A panel for each quantity: prediction against label, with the line of equality and the root mean square error.

    Args:
        predictions: label and prediction of energies per atom in Ha, force components in Ha/bohr, pressures in GPa.
            # (numbers, 2) each
    """
    names = [name for name in PANELS if name in predictions]
    with house_style():
        figure, axes = panel_grid(len(names), 3, (3.6, 3.2))
        for axis, name in zip(axes, names, strict=True):
            title, unit, error_unit, error_factor, colour = PANELS[name]
            label, found = predictions[name].T
            rmse = float(np.sqrt(np.mean((found - label) ** 2))) * error_factor
            low, high = float(min(label.min(), found.min())), float(max(label.max(), found.max()))
            margin = 0.05 * (high - low) or 0.05
            limits = (low - margin, high + margin)
            axis.plot(limits, limits, color=GREY, linewidth=0.8)
            axis.plot(label, found, ".", color=colour, markersize=3.0, alpha=0.6)
            axis.set(xlim=limits, ylim=limits, aspect="equal")
            axis.locator_params(nbins=4)
            axis.set_title(f"{title}: RMSE {rmse:.3g} {error_unit}")
            axis.set_xlabel(f"label ({unit})")
            axis.set_ylabel(f"potential ({unit})")
    return figure


def save_parity(folder: str | Path) -> list[Path]:
    """Write figures/parity.png into the folder of a run whose `test` has written predictions.npz.

    Raises:
        FileNotFoundError: no predictions in the folder.
    """
    source = Path(folder) / PREDICTIONS
    if not source.is_file():
        raise FileNotFoundError(f"{source} is missing; write it with: lightning-vfe test run_dir={folder}")
    with np.load(source, allow_pickle=False) as content:
        figure = draw_parity(dict(content))
    file = Path(folder) / "figures" / "parity.png"
    file.parent.mkdir(exist_ok=True)
    figure.savefig(file, dpi=FILE_DPI)
    return [file]
