"""All figures of a run."""

from __future__ import annotations

from pathlib import Path

from lightning_vfe.analysis.measurements import draw_pair_correlation, draw_terms
from lightning_vfe.analysis.momentum import draw_momentum_distribution
from lightning_vfe.analysis.run import load_run
from lightning_vfe.analysis.structure import draw_structure_factor
from lightning_vfe.analysis.training_curves import draw_training

__all__ = [
    "draw_momentum_distribution",
    "draw_pair_correlation",
    "draw_structure_factor",
    "draw_terms",
    "draw_training",
    "save_figures",
]

FILE_DPI = 160


def save_figures(folder: str | Path) -> list[Path]:
    """Write the figures of a run into its folder figures/, those that its files allow.

    They are training.png, terms.png, pair_correlation.png, structure_factor.png and momentum_distribution.png.

    Returns:
        The files written.

    Raises:
        FileNotFoundError: no run in the folder.
        ValueError: a file of the run is damaged.
    """
    run = load_run(folder)
    figures = {}
    if run.fitted:
        figures["training"] = draw_training(run)
    if run.tested:
        figures["terms"] = draw_terms(run)
    if (run.folder / "pair_correlation.csv").is_file():
        figures["pair_correlation"] = draw_pair_correlation(run)
    if (run.folder / "structure_factor.csv").is_file():
        figures["structure_factor"] = draw_structure_factor(run)
    if (run.folder / "momentum_distribution.csv").is_file():
        figures["momentum_distribution"] = draw_momentum_distribution(run)
    (run.folder / "figures").mkdir(exist_ok=True)
    files = []
    for name, figure in figures.items():
        files.append(run.folder / "figures" / f"{name}.png")
        figure.savefig(files[-1], dpi=FILE_DPI)
    return files
