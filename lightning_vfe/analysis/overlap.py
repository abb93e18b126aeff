"""The overlap matrix of an integration of ln Z."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from lightning_vfe.analysis.style import house_style, panel_grid

# With more windows than this the numbers in the cells cannot be read.
_MOST_LABELLED = 16


def draw_overlap(overlap: np.ndarray, points: np.ndarray, title: str) -> Figure:
    """Matrix O_ij, the probability that a sample of window i has its weight in window j; each row adds up to one.

    MBAR needs neighbours that overlap: the band beside the diagonal must not break.

    Args:
        overlap: O.  # (K, K)
        points: windows along the path, 0 for the ideal gas; whole numbers are the ends of stages.  # (K,)
        title: the line above the figure.
    """
    count = len(points)
    size = min(8.0, 2.6 + 0.34 * count)
    with house_style():
        figure, (axes,) = panel_grid(1, 1, (size, 0.86 * size))
        image = axes.imshow(overlap, cmap="Blues", vmin=0.0, vmax=max(0.5, float(overlap.max())))
        axes.grid(visible=False)
        if count <= _MOST_LABELLED:
            for i, j in np.argwhere(overlap >= 0.005):
                shade = "white" if overlap[i, j] > 0.3 else "#222222"
                axes.text(j, i, f"{overlap[i, j]:.2f}".lstrip("0"), ha="center", va="center", fontsize=7, color=shade)
        shown = np.arange(0, count, -(-count // 12))
        labels = [f"{point:.3g}" for point in points[shown]]
        axes.set_xticks(shown, labels, rotation=90)
        axes.set_yticks(shown, labels)
        axes.set_xlabel("window $j$ (0 ideal gas, whole numbers: ends of stages)")
        axes.set_ylabel("window $i$")
        bar = figure.colorbar(image, ax=axes, shrink=0.8)
        bar.set_label("overlap $O_{ij}$")
        axes.set_title("Overlap of the windows")
        figure.suptitle(title, x=0.02, ha="left", fontsize=9.5)
    return figure
