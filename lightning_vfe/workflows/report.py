"""Runs of the same states side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from lightning_vfe.analysis.compare import comparison_table, draw_comparison
from lightning_vfe.analysis.figures import FILE_DPI
from lightning_vfe.analysis.run import load_run
from lightning_vfe.analysis.training_scatter import training_scatter
from lightning_vfe.errors import CommandError, SettingError, one_line
from lightning_vfe.files import whole_file


@dataclass(frozen=True)
class Comparison:
    """Results of several runs.

    Attributes:
        table: a row for each run (and state), with a column for each term and its error.
        figure: the same drawn.
        scatter: how much trainings differ that have all settings in common but the seed (analysis/training_scatter.py);
            empty where there are none.
        files: where they are stored, without an empty one; empty where they are not.
    """

    table: pd.DataFrame
    figure: Figure
    scatter: pd.DataFrame
    files: tuple[Path, ...] = ()


def report(runs: Sequence[str | Path], labels: Sequence[str] = (), run_dir: str | Path | None = None) -> Comparison:
    """Compare runs of the same system and states.

    Args:
        runs: folders that `test` or `log-z` has written a summary.json into.
        labels: a name for each run; left out, the names of the folders.
        run_dir: folder of comparison.csv, comparison.png and training_scatter.csv; None writes nothing.

    Raises:
        CommandError: no run, a folder without a result, runs of different systems or states, or labels that do not fit.
    """
    folders = [Path(str(folder)) for folder in runs]
    try:
        found = {label: load_run(folder) for label, folder in zip(_names(labels, folders), folders, strict=True)}
        table, scatter = comparison_table(found), training_scatter(found)
    except (FileNotFoundError, ValueError) as error:
        raise CommandError(one_line(error)) from error
    figure = draw_comparison(found)
    if run_dir is None:
        return Comparison(table, figure, scatter)
    home = Path(run_dir)
    home.mkdir(parents=True, exist_ok=True)
    files = [home / "comparison.csv", home / "comparison.png"]
    _write(table, files[0])
    figure.savefig(files[1], dpi=FILE_DPI)
    if not scatter.empty:
        files.append(home / "training_scatter.csv")
        _write(scatter, files[2])
    return Comparison(table, figure, scatter, tuple(files))


def _write(table: pd.DataFrame, file: Path) -> None:
    with whole_file(file, newline="") as stream:
        table.to_csv(stream)


def _names(labels: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """A name for each run, all different."""
    names = [folder.name for folder in folders] if not labels else [str(label) for label in labels]
    if len(names) != len(folders):
        raise SettingError("labels", names, f"are {len(names)} but runs are {len(folders)}", "give one for each run")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise SettingError("labels", names, f"has {twice[0]} for several runs", "give labels=[...] that differ")
    return names
