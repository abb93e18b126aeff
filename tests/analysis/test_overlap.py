"""The figure of the overlap matrix."""

from pathlib import Path

import numpy as np
import pytest

from lightning_vfe.analysis.overlap import draw_overlap


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_all_sizes_are_drawn(count: int, tmp_path: Path) -> None:
    """Entries are written into the cells of small matrices; the axes carry at most a dozen of windows."""
    near = np.exp(-np.abs(np.arange(count)[:, None] - np.arange(count)))
    overlap = near / near.sum(axis=1, keepdims=True)
    figure = draw_overlap(overlap, np.linspace(0, 2, count), "N = 8")
    axes = figure.axes[0]
    assert len(axes.get_xticks()) <= 12
    assert axes.get_xticklabels()[0].get_text() == "0"
    written = {text.get_text() for text in axes.texts}
    assert written == set() if count > 16 else f"{overlap[0, 0]:.2f}".lstrip("0") in written
    figure.savefig(tmp_path / "overlap.png")
    assert (tmp_path / "overlap.png").stat().st_size > 2000
