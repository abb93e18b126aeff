"""Parity plots: cells are told apart, several potentials share their limits, and tick labels do not overlap."""

import itertools

import numpy as np
import pytest
from matplotlib.axes import Axes

from lightning_vfe.analysis.parity import draw_parities, draw_parity, root_mean_square_error


def predictions(cells: list[tuple[int, float]], noise: float = 1e-3) -> dict[str, np.ndarray]:
    random, parts = np.random.default_rng(1), {}
    for name, scale in (("energy_per_atom", 0.01), ("force", 0.2), ("pressure_gpa", 1000.0)):
        blocks = []
        for size, rs in cells:
            label = -0.5 + scale * random.normal(size=30)
            both = np.stack([label, label + noise * scale * random.normal(size=30)], axis=1)
            blocks.append(np.concatenate([both, np.broadcast_to([size, rs], both.shape)], axis=1))
        parts[name] = np.concatenate(blocks)
    return parts


def ticks_overlap(axis: Axes) -> bool:
    axis.figure.canvas.draw()
    boxes = [label.get_window_extent() for label in axis.get_xticklabels() if label.get_text()]
    low, high = axis.get_window_extent().intervalx
    shown = sorted((box for box in boxes if low - 1 < (box.x0 + box.x1) / 2 < high + 1), key=lambda box: box.x0)
    return any(first.x1 > second.x0 for first, second in itertools.pairwise(shown))


@pytest.mark.parametrize(
    ("cells", "written"),
    [
        ([(8, 1.25)], []),
        ([(4, 1.25), (8, 1.25)], ["$N = 4$, $r_s = 1.25$", "$N = 8$, $r_s = 1.25$"]),
        ([(8, 1.2 + 0.1 * i) for i in range(9)], ["$r_s = 1.2$", "$r_s = 1.6$", "$r_s = 2$", "$N = 8$"]),
    ],
)
def test_cells_have_a_key(cells: list[tuple[int, float]], written: list[str]) -> None:
    figure = draw_parity(predictions(cells))
    key = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert key == written
    assert len(figure.axes) == 3
    assert not any(ticks_overlap(axis) for axis in figure.axes)


def test_several_potentials_share_their_limits() -> None:
    first, second = predictions([(8, 1.25)]), predictions([(8, 1.25)], noise=1.0)
    del second["pressure_gpa"]
    figure = draw_parities({"first": first, "second": second})
    axes = figure.axes
    assert len(axes) == 6
    assert axes[0].get_xlim() == axes[3].get_xlim()
    assert "second" in axes[3].get_ylabel()
    assert not axes[5].axison
    assert root_mean_square_error(np.array([[1.0, 4.0], [2.0, -2.0]])) == pytest.approx(np.sqrt(12.5))


def test_files_without_cells_are_drawn() -> None:
    figure = draw_parity({name: numbers[:, :2] for name, numbers in predictions([(8, 1.25)]).items()})
    assert len(figure.axes) == 3
    assert not figure.legends
