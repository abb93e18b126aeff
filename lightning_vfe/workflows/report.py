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
from lightning_vfe.analysis.sizes import draw_sizes, extrapolate, size_table
from lightning_vfe.errors import CommandError, SettingError, one_line
from lightning_vfe.files import whole_file


@dataclass(frozen=True)
class Comparison:
    """Results of several runs.

    Attributes:
        table: a row for each run (and state), with a column for each term and its error.
        figure: the same drawn.
        files: where all are stored; empty where they are not.
        extrapolation: of runs that differ in N, the lines against 1/N, empty with fewer than three N; else None.
    """

    table: pd.DataFrame
    figure: Figure
    files: tuple[Path, ...] = ()
    extrapolation: pd.DataFrame | None = None


def report(runs: Sequence[str | Path], labels: Sequence[str] = (), run_dir: str | Path | None = None) -> Comparison:
    """Compare runs of the same system and states, or of one state with several numbers of atoms.

    Args:
        runs: folders that `test` or `log-z` has written a summary.json into.
        labels: a name for each run; left out, the names of the folders.
        run_dir: folder of comparison.csv and comparison.png, and of extrapolation.csv for several numbers of atoms;
            None writes nothing.

    Raises:
        CommandError: no run, a folder without a result, runs of different systems or states, or labels that do not fit.
    """
    folders = [Path(str(folder)) for folder in runs]
    try:
        found = {label: load_run(folder) for label, folder in zip(_names(labels, folders), folders, strict=True)}
        has_sizes = len({run.system.get("num_atoms") for run in found.values()}) > 1
        table = size_table(found) if has_sizes else comparison_table(found)
    except (FileNotFoundError, ValueError) as error:
        raise CommandError(one_line(error)) from error
    figure = draw_sizes(found) if has_sizes else draw_comparison(found)
    extrapolation = extrapolate(table) if has_sizes else None
    if run_dir is None:
        return Comparison(table, figure, extrapolation=extrapolation)
    home = Path(run_dir)
    home.mkdir(parents=True, exist_ok=True)
    files: tuple[Path, ...] = (home / "comparison.csv", home / "comparison.png")
    with whole_file(files[0], newline="") as stream:
        table.to_csv(stream)
    figure.savefig(files[1], dpi=FILE_DPI)
    if extrapolation is not None:
        files = *files, home / "extrapolation.csv"
        with whole_file(files[2], newline="") as stream:
            extrapolation.to_csv(stream)
    return Comparison(table, figure, files, extrapolation)


def _names(labels: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """A name for each run, all different."""
    names = [folder.name for folder in folders] if not labels else [str(label) for label in labels]
    if len(names) != len(folders):
        raise SettingError("labels", names, f"are {len(names)} but runs are {len(folders)}", "give one for each run")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise SettingError("labels", names, f"has {twice[0]} for several runs", "give labels=[...] that differ")
    return names
