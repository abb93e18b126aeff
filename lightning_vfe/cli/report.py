"""The verb `report`: compare runs of the same states in a table, a CSV file and a figure."""

from collections import Counter
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from lightning_vfe.errors import CommandError, SettingError, one_line


def run(config: DictConfig) -> int:
    """Compare the runs of the config; returns the exit code.

    Raises:
        CommandError: no run, a folder without a result, runs of different systems or states, or labels that do not fit.
    """
    from lightning_vfe.analysis.compare import comparison_table, draw_comparison
    from lightning_vfe.analysis.figures import FILE_DPI
    from lightning_vfe.analysis.run import load_run

    folders = [Path(folder) for folder in config.runs]
    try:
        runs = {label: load_run(folder) for label, folder in zip(_labels(config, folders), folders, strict=True)}
        table, figure = comparison_table(runs), draw_comparison(runs)
    except (FileNotFoundError, ValueError) as error:
        raise CommandError(one_line(error)) from error
    home = Path(config.run_dir)
    home.mkdir(parents=True, exist_ok=True)
    table.to_csv(home / "comparison.csv")
    figure.savefig(home / "comparison.png", dpi=FILE_DPI)
    _print(table)
    print(f"table: {home / 'comparison.csv'}\nfigure: {home / 'comparison.png'}")
    return 0


def _labels(config: DictConfig, folders: list[Path]) -> list[str]:
    """A name for each run, all different."""
    labels = [folder.name for folder in folders] if not config.labels else [str(label) for label in config.labels]
    if len(labels) != len(folders):
        raise SettingError("labels", labels, f"are {len(labels)} but runs are {len(folders)}", "give one for each run")
    twice = [label for label, count in Counter(labels).items() if count > 1]
    if twice:
        raise CommandError(f"labels: {twice[0]} stands for several runs; give labels=[...] that differ")
    return labels


def _print(table: Any) -> None:
    """Runs stand side by side, so that three of them with their errors fit into 80 columns; a block for each state."""
    from rich.console import Console
    from rich.table import Table

    from lightning_vfe.analysis.states import State

    note = "errors are one standard error"
    if table.index.nlevels == 1:
        blocks = {note: table}
    else:
        grouped = table.groupby(level=["rs", "temperature_kelvin"], sort=False)
        blocks = {f"{State(*place).label}; {note}": rows.droplevel([0, 1]) for place, rows in grouped}
    for title, rows in blocks.items():
        shown = Table(title=title)
        shown.add_column("")
        for label in rows.index:
            shown.add_column(str(label), justify="right")
        for cells in _rows(rows):
            shown.add_row(*cells)
        Console().print(shown)


def _rows(table: Any) -> list[list[str]]:
    """The printed rows of one state."""
    from lightning_vfe.analysis.compare import COMPARED
    from lightning_vfe.analysis.terms import TERMS, value_with_error

    rows = []
    for name in COMPARED:
        cells = [value_with_error(*pair) for pair in zip(table[name], table[f"{name}_error"], strict=True)]
        rows.append([f"{TERMS[name].plain_symbol}, {TERMS[name].unit}", *cells])
    above = ["-" if value != value else f"{1000 * value:.2f}" for value in table["above_lowest_f"]]
    rows.append(["above lowest F, mHa/atom", *above])
    rows.append(["converged", *("yes" if good else "NO" for good in table["converged"])])
    return rows
