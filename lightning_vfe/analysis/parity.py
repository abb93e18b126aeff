"""Parity plots of fitted potentials: what they predict against the labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lightning_vfe.analysis.style import BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILION, house_style, panel_grid

PREDICTIONS = "predictions.npz"
FILE_DPI = 160
# name in the file: title, unit, unit of the error, factor to it
PANELS = {
    "energy_per_atom": ("energy per atom", "Ha/atom", "mHa/atom", 1e3),
    "force": ("force components", "Ha/bohr", "mHa/bohr", 1e3),
    "pressure_gpa": ("pressure", "GPa", "GPa", 1.0),
}
COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE)
"""Of the cells, where they are not more than these."""
MARKERS = ("o", "s", "^", "D", "v")
"""Of the numbers of atoms."""

Cell = tuple[int, float]
"""N and rs."""
Predictions = Mapping[str, np.ndarray]
"""Label and prediction of energies per atom in Ha, force components in Ha/bohr, pressures in GPa; where the columns are
four, also N and rs of the cell.  # (numbers, 2) or (numbers, 4) each"""


def root_mean_square_error(numbers: np.ndarray) -> float:
    """Of predictions, in the unit of the labels."""
    return float(np.sqrt(np.mean((numbers[:, 1] - numbers[:, 0]) ** 2)))


def draw_parity(predictions: Predictions) -> Figure:
    """A panel for each quantity: prediction against label, with the line of equality and the root mean square error.

    The colour is that of the cell, its N and rs. More than five cells have the colours of their rs, and the markers of
    their N.
    """
    return draw_parities({"": predictions})


def draw_parities(potentials: Mapping[str, Predictions]) -> Figure:
    """A row of `draw_parity` for each potential, by their names; the panels of a quantity share their limits."""
    names = [name for name in PANELS if any(name in each for each in potentials.values())]
    cells = sorted({cell for each in potentials.values() for cell in _cells(each)})
    with house_style():
        figure, axes = panel_grid(len(names) * len(potentials), len(names), (3.6, 3.2))
        for column, name in enumerate(names):
            shown = [each[name] for each in potentials.values() if name in each]
            limits = _limits(np.concatenate([numbers[:, :2] for numbers in shown]))
            for row, (label, each) in enumerate(potentials.items()):
                axis = axes[row * len(names) + column]
                if name in each:
                    _draw(axis, each[name], name, limits, cells)
                else:
                    axis.set_axis_off()
                if label and column == 0:
                    axis.set_ylabel(f"{label}\n{axis.get_ylabel()}")
        if len(cells) > 1:
            handles = _key(cells)
            figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 2 * len(names)))
    return figure


def save_parity(folder: str | Path) -> list[Path]:
    """Write figures/parity.png into the folder of a run whose `test` has written predictions.npz.

    Raises:
        FileNotFoundError: no predictions in the folder.
    """
    figure = draw_parity(read_predictions(folder))
    file = Path(folder) / "figures" / "parity.png"
    file.parent.mkdir(exist_ok=True)
    figure.savefig(file, dpi=FILE_DPI)
    return [file]


def read_predictions(folder: str | Path) -> dict[str, np.ndarray]:
    """What `test` of a potential has written into a folder.

    Raises:
        FileNotFoundError: no predictions in the folder.
    """
    source = Path(folder) / PREDICTIONS
    if not source.is_file():
        raise FileNotFoundError(f"{source} is missing; write it with: lightning-vfe test run_dir={folder}")
    with np.load(source, allow_pickle=False) as content:
        return dict(content)


def _draw(axis: Axes, numbers: np.ndarray, name: str, limits: tuple[float, float], cells: list[Cell]) -> None:
    title, unit, error_unit, error_factor = PANELS[name]
    axis.plot(limits, limits, color=GREY, linewidth=0.8)
    own_cells: list[Cell | None] = [*_cells({name: numbers})] or [None]
    for cell in own_cells:
        own = numbers if cell is None else numbers[(numbers[:, 2] == cell[0]) & (numbers[:, 3] == cell[1])]
        color, marker = (BLUE, "o") if cell is None else _look(cell, cells)
        axis.plot(own[:, 0], own[:, 1], marker, color=color, markersize=2.6, markeredgewidth=0.0, alpha=0.6)
    axis.set(xlim=limits, ylim=limits, aspect="equal")
    axis.locator_params(nbins=4)
    axis.set_title(f"{title}: RMSE {root_mean_square_error(numbers) * error_factor:.3g} {error_unit}")
    axis.set_xlabel(f"label ({unit})")
    axis.set_ylabel(f"potential ({unit})")


def _limits(pairs: np.ndarray) -> tuple[float, float]:
    low, high = float(pairs.min()), float(pairs.max())
    margin = 0.05 * (high - low) or 0.05
    return low - margin, high + margin


def _cells(predictions: Predictions) -> list[Cell]:
    """N and rs of all cells; none in files that do not have them."""
    places = [numbers[:, 2:] for numbers in predictions.values() if numbers.shape[1] == 4]
    if not places:
        return []
    return [(int(size), float(rs)) for size, rs in np.unique(np.concatenate(places), axis=0)]


def _look(cell: Cell, cells: list[Cell]) -> tuple[object, str]:
    """Colour and marker of a cell among all."""
    sizes, densities = sorted({size for size, _ in cells}), sorted({rs for _, rs in cells})
    marker = MARKERS[sizes.index(cell[0]) % len(MARKERS)]
    if len(cells) <= len(COLORS):
        return COLORS[cells.index(cell)], marker
    return colormaps["viridis"](Normalize(densities[0], densities[-1])(cell[1])), marker


def _key(cells: list[Cell]) -> list[Line2D]:
    """Of all cells, or of the least, middle and largest rs and of each N."""

    def handle(cell: Cell, label: str) -> Line2D:
        color, marker = _look(cell, cells)
        return Line2D([], [], color=color, marker=marker, linestyle="", markersize=4, label=label)  # type: ignore[arg-type]

    if len(cells) <= len(COLORS):
        return [handle((size, rs), f"$N = {size}$, $r_s = {rs:g}$") for size, rs in cells]
    by_density = sorted(cells, key=lambda cell: cell[1])
    ends = (by_density[0], by_density[len(cells) // 2], by_density[-1])
    handles = [handle((cells[0][0], rs), f"$r_s = {rs:.3g}$") for _, rs in ends]
    for size in sorted({size for size, _ in cells}):
        mark = handle((size, by_density[0][1]), f"$N = {size}$")
        mark.set_color(GREY)
        handles.append(mark)
    return handles
