"""Runs of the same states side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from lightning_vfe import __version__
from lightning_vfe.analysis.compare import comparison_table, draw_comparison
from lightning_vfe.analysis.figures import FILE_DPI
from lightning_vfe.analysis.html_report import html_report, step_note
from lightning_vfe.analysis.parity import PREDICTIONS, read_predictions
from lightning_vfe.analysis.run import check_files, load_run
from lightning_vfe.analysis.sizes import draw_sizes, extrapolate, size_table
from lightning_vfe.analysis.training_scatter import training_scatter
from lightning_vfe.analysis.training_verdict import training_note
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
        extrapolation: of runs that differ in N, the lines against 1/N, empty with fewer than three N; else None.
        files: where each is stored; empty where they are not.
        notes: runs whose result is of an older step, or whose training seems not to be at its end.
    """

    table: pd.DataFrame
    figure: Figure
    scatter: pd.DataFrame
    extrapolation: pd.DataFrame | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def report(
    runs: Sequence[str | Path],
    labels: Sequence[str] = (),
    run_dir: str | Path | None = None,
    command: str = "lv.report",
) -> Comparison:
    """Compare runs of the same system and states, or of one state with several numbers of atoms.

    Args:
        runs: folders that `test` or `log-z` has written a summary.json into. Folders of fitted potentials may be
            among them: the page has their errors and parity plots.
        labels: a name for each run; left out, the names of the folders.
        run_dir: folder of report.html, comparison.csv and comparison.png, of extrapolation.csv for several numbers of
            atoms, and of training_scatter.csv; None writes nothing.
        command: the command that made the report, for the page.

    Raises:
        CommandError: no run, a folder without a result or with a damaged file, runs of different systems or states, or
            labels that do not fit.
    """
    folders = [Path(str(folder)) for folder in runs]
    named = dict(zip(_names(labels, folders), folders, strict=True))
    potentials = {label: read_predictions(folder) for label, folder in named.items() if _is_potential(folder)}
    if potentials and len(potentials) == len(named):
        raise SettingError("runs", list(named), "are fitted potentials alone", "add a run of test or log-z")
    try:
        found = {label: load_run(folder) for label, folder in named.items() if label not in potentials}
        for run in found.values():
            check_files(run.folder, measures=False)
        has_sizes = len({run.system.get("num_atoms") for run in found.values()}) > 1
        table, scatter = size_table(found) if has_sizes else comparison_table(found), training_scatter(found)
    except (FileNotFoundError, ValueError) as error:
        raise CommandError(one_line(error)) from error
    figure = draw_sizes(found) if has_sizes else draw_comparison(found)
    extrapolation = extrapolate(table) if has_sizes else None
    notes = tuple(
        f"{name}: {line}" for name, run in found.items() for line in (step_note(run), training_note(run)) if line
    )
    if run_dir is None:
        return Comparison(table, figure, scatter, extrapolation, notes=notes)
    home = Path(run_dir)
    home.mkdir(parents=True, exist_ok=True)
    files = {"table": home / "comparison.csv", "figure": home / "comparison.png"}
    _write(table, files["table"])
    figure.savefig(files["figure"], dpi=FILE_DPI)
    if extrapolation is not None:
        files["extrapolation"] = home / "extrapolation.csv"
        _write(extrapolation, files["extrapolation"])
    if not scatter.empty:
        files["trainings"] = home / "training_scatter.csv"
        _write(scatter, files["trainings"])
    files["page"] = home / "report.html"
    origin = {"lightning-vfe": __version__, "command": command, "date": datetime.now(UTC).date().isoformat()}
    with whole_file(files["page"]) as stream:
        stream.write(html_report(found, figure, origin, potentials=potentials))
    return Comparison(table, figure, scatter, extrapolation, files, notes)


def _is_potential(folder: Path) -> bool:
    """Whether `test` of a fitted potential, and nothing else, has measured here."""
    return (folder / PREDICTIONS).is_file() and not (folder / "summary.json").is_file()


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
