"""The verb `report`: runs of the same states side by side."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from lightning_vfe.analysis.compare import COMPARED, EXACT
from lightning_vfe.analysis.sizes import EXTRAPOLATED, KINDS, MIN_SIZES
from lightning_vfe.analysis.states import State
from lightning_vfe.analysis.terms import TERMS, value_in_brackets, value_with_error
from lightning_vfe.analysis.training_scatter import SIGNIFICANT
from lightning_vfe.cli.banner import print_rows
from lightning_vfe.workflows.report import report
from lightning_vfe.workflows.verbs import compose_verb

WORDS = {True: "yes", False: "NO"}
"""Of a verdict; one that is not known has none."""
MAX_CHI2 = 4.0
"""chi^2 per degree of freedom above which points are said not to be on a line."""


def run(words: Sequence[str], is_dry_run: bool = False) -> int:
    """Compare, and print the table; a dry run writes no file. Returns the exit code."""
    config = compose_verb("report", tuple(words))
    command = shlex.join(["lightning-vfe", "report", *words])
    found = report(config.runs, config.labels, None if is_dry_run else config.run_dir, command)
    print_rows("report", Path(config.run_dir).name, [("runs", str(len(config.runs))), ("folder", str(config.run_dir))])
    if found.extrapolation is None:
        _print(found.table)
    else:
        _print_sizes(found.table, found.extrapolation)
    _print_scatter(found.scatter)
    for note in found.notes:
        print(f"note: {note}")
    for kind, file in found.files.items():
        print(f"{kind}: {file}")
    return 0


def _print_scatter(scatter: pd.DataFrame) -> None:
    """A block for each group of trainings and state: the mean with an error that contains their scatter, a verdict."""
    if scatter.empty:
        print("one training of each: the errors do not contain the scatter between trainings")
        return
    for (_, rs, kelvin), rows in scatter.groupby(level=[0, 1, 2], sort=False):
        where = f"{State(rs, kelvin).label}; " if rs == rs else ""
        shown = Table(title=f"{where}{rows['num_trainings'].iloc[0]} trainings that differ by their seed")
        for heading in ("", "mean(error)", "std. dev.", "stat. error", "chi^2", "p", "differ"):
            shown.add_column(heading, justify="right")
        for (*_, name), row in rows.iterrows():
            digits = 2 if name == "pressure_gpa" else 5
            mean = value_in_brackets(row["mean"], row["mean_error"])
            numbers = [mean, *(f"{row[column]:.{digits}f}" for column in ("standard_deviation", "statistical_error"))]
            verdict = "yes" if row["p_value"] < SIGNIFICANT else "no"
            label = f"{TERMS[name].plain_symbol}, {TERMS[name].unit}"
            shown.add_row(label, *numbers, f"{row['chi2']:.1f}", f"{row['p_value']:.2g}", verdict)
        Console(markup=False).print(shown)


def _print(table: pd.DataFrame) -> None:
    """Runs stand side by side, so that three of them with their errors fit into 80 columns; a block for each state."""
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
        Console(markup=False).print(shown)


def _rows(table: pd.DataFrame) -> list[list[str]]:
    """The printed rows of one state."""
    rows = []
    for name in COMPARED:
        cells = [value_with_error(*pair) for pair in zip(table[name], table[f"{name}_error"], strict=True)]
        rows.append([f"{TERMS[name].plain_symbol}, {TERMS[name].unit}", *cells])
    if EXACT in table and table[EXACT].notna().any():
        pairs = zip(table[EXACT], table[f"{EXACT}_error"], strict=True)
        rows.append(["exact F, estimate, Ha/atom", *(value_with_error(*pair) for pair in pairs)])
    above = ["-" if value != value else f"{1000 * value:.2f}" for value in table["above_lowest_f"]]
    rows.append(["above lowest F, mHa/atom", *above])
    rows.append(["sampling converged", *("yes" if good else "NO" for good in table["converged"])])
    rows.append(["training converged", *(WORDS.get(verdict, "-") for verdict in table["trained"])])
    return rows


def _print_sizes(table: pd.DataFrame, lines: pd.DataFrame) -> None:
    """A block for each quantity: a row for each run, the smallest N first, and the line's value at 1/N = 0."""
    for name in EXTRAPOLATED:
        shown = Table(title=f"{TERMS[name].plain_symbol}, {TERMS[name].unit}; errors are one standard error")
        for heading in ("", "N", "measured", "corrected"):
            shown.add_column(heading, justify="right" if heading else "left")
        for label, row in table.iterrows():
            pairs = [(row[f"{name}{ending}"], row[f"{name}{ending}_error"]) for ending, *_ in KINDS.values()]
            shown.add_row(str(label), str(row["num_atoms"]), *(value_with_error(*pair) for pair in pairs))
        fits = [lines.loc[(name, kind)] if (name, kind) in lines.index else None for kind in KINDS]
        if any(fit is not None for fit in fits):
            ends = ["-" if fit is None else value_with_error(fit["value"], fit["error"]) for fit in fits]
            quality = ["-" if fit is None else f"{fit['chi2_per_dof']:.1f}" for fit in fits]
            shown.add_row("line at 1/N = 0", "", *ends)
            shown.add_row("chi^2 per dof", "", *quality)
        Console(markup=False).print(shown)
    if lines.empty:
        print(f"no line against 1/N: it needs values with errors of at least {MIN_SIZES} numbers of atoms")
    elif lines["chi2_per_dof"].max() > MAX_CHI2:
        print(f"chi^2 per dof above {MAX_CHI2:g}: the points are not on a line, and the error at 1/N = 0 is too small")
