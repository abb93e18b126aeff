"""The results of a sweep side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from lightning_vfe.analysis.compare import COMPARED
from lightning_vfe.analysis.run import RunFolder
from lightning_vfe.analysis.terms import value_with_error
from lightning_vfe.errors import CommandError, one_line
from lightning_vfe.files import whole_file

STATE = {"rs": "rs, bohr", "temperature_kelvin": "T, K"}
"""Columns of the state, and what stands above them in print."""


def print_results(home: Path, jobs: Mapping[Path, Mapping[str, str]]) -> None:
    """Print F, E, S and P of the jobs that `test` has measured, and write them to `sweep.csv` in the sweep's folder.

    A job of several states has a row for each; then every row says its state, in columns of its own.

    Args:
        home: folder of the sweep.
        jobs: by their folders, the keys of the sweep with their values; jobs without a summary.json, such as fits of
            potentials, are left out.

    Raises:
        CommandError: a file of a job is damaged.
    """
    measured = [(values, RunFolder(folder)) for folder, values in jobs.items() if RunFolder(folder).tested]
    if not measured:
        return
    try:
        several = any(len(run.states) > 1 for _, run in measured)
        rows = [_row(values, view, several) for values, run in measured for view in run.views]
    except ValueError as error:
        raise CommandError(one_line(error)) from error
    with whole_file(home / "sweep.csv", newline="") as stream:
        pd.DataFrame(rows).to_csv(stream, index=False)
    shown = Table(title="per atom; errors are one standard error", box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    keys = list(next(iter(jobs.values())))
    headings = [key.rpartition(".")[2] for key in keys] + (list(STATE.values()) if several else [])
    for heading in [*headings, "F, Ha", "E, Ha", "S, k_B", "P, GPa", "converged"]:
        shown.add_column(heading, justify="right")
    for row in rows:
        place = [f"{row[key]:g}" for key in STATE] if several else []
        cells = [value_with_error(row[name], row[f"{name}_error"]) for name in COMPARED]
        shown.add_row(*(row[key] for key in keys), *place, *cells, "yes" if row["converged"] else "NO")
    Console(soft_wrap=True, markup=False).print(shown)
    print(f"table: {home / 'sweep.csv'}")


def _row(values: Mapping[str, str], run: RunFolder, with_state: bool) -> dict[str, Any]:
    row: dict[str, Any] = dict(values)
    if with_state:
        row |= {key: getattr(run.states[0], key) if run.states else math.nan for key in STATE}
    for name in COMPARED:
        row[name], row[f"{name}_error"] = run.result(name)
    return row | {"converged": bool(run.summary.get("converged", False))}
