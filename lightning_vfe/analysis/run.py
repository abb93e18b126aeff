"""Load a run, and put its results and the published ones into tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from lightning_vfe.analysis.files import metrics_states, read_metrics
from lightning_vfe.analysis.folder import RunAtState, RunFolder
from lightning_vfe.analysis.published import literature_table
from lightning_vfe.analysis.states import is_hydrogen, states_of
from lightning_vfe.analysis.terms import TERMS
from lightning_vfe.resources import data_folder

__all__ = ["RunAtState", "RunFolder", "check_files", "latest_run", "literature", "load_run", "results_table"]


def load_run(folder: str | Path) -> RunFolder:
    """The run in a folder, or the shipped one of a name such as `data/runs/eos_h8_tabc`.

    Raises:
        FileNotFoundError: there is no such folder, or no run in it.
    """
    run = RunFolder(data_folder(folder))
    if not run.folder.is_dir():
        raise FileNotFoundError(_no_folder(run.folder))
    if not (run.fitted or run.tested):
        raise FileNotFoundError(f"{folder} holds neither metrics.csv nor summary.json; give the folder of a run")
    return run


def _no_folder(path: Path) -> str:
    """What is wrong with a run folder that is none, and what to do."""
    if path.exists():
        return f"run folder {path} is a file; give the folder of a run"
    if data_folder("data" / path).is_dir():
        return f"run folder {path} does not exist; the run of this name that is shipped is {'data' / path}"
    return f"run folder {path} does not exist; start a run with: lightning-vfe fit"


def check_files(folder: str | Path, measures: bool) -> None:
    """Read what a command will read of a run at its end, so that damage is known before the work.

    Args:
        folder: the run folder.
        measures: whether the command writes summary.json and the curves again.

    Raises:
        ValueError: one line that names the file, what is wrong with it and what to do.
    """
    run = RunFolder(Path(folder))
    if run.fitted:
        file = run.folder / "metrics.csv"
        metrics_states(list(read_metrics(file)), file)
    if measures:
        return
    if run.tested:
        _ = run.summary, run.states
    if (run.folder / "pair_correlation.csv").is_file():
        _ = run.pair_correlation
    if (run.folder / "structure_factor.csv").is_file():
        _ = run.structure_factor
    if (run.folder / "momentum_distribution.csv").is_file():
        _ = run.momentum_distribution


def latest_run(folder: str | Path | None = None) -> Path:
    """Folder of the run that trained last.

    Args:
        folder: where the runs' folders are; None takes `runs` here, or beside this folder (a notebook's place).

    Raises:
        FileNotFoundError: there is no run.
    """
    places = [Path("runs"), Path("..") / "runs"] if folder is None else [Path(folder)]
    for place in places:
        found = sorted(place.glob("*/metrics.csv"), key=lambda file: file.stat().st_mtime)
        if found:
            return found[-1].parent
    looked = " and ".join(str(place) for place in places)
    raise FileNotFoundError(f"no run in {looked}; start one with: lightning-vfe fit")


def results_table(run: RunFolder) -> pd.DataFrame:
    """What `test` found: a row for each term (by its name in summary.json) with quantity, value, error and unit.

    The error is one standard error; a value that `test` does not report is nan. With several states, `rs` and
    `temperature_kelvin` are the first two levels of the index.
    """
    if len(run.states) > 1:
        blocks = {(view.states[0].rs, view.states[0].temperature_kelvin): results_table(view) for view in run.views}
        return pd.concat(blocks, names=["rs", "temperature_kelvin"])
    names = [name for name, entry in run.summary.items() if isinstance(entry, Mapping) and "value" in entry]
    names.sort(key=lambda name: list(TERMS).index(name) if name in TERMS else len(TERMS))
    rows = []
    for name in names:
        meaning, unit = (TERMS[name].meaning, TERMS[name].unit) if name in TERMS else ("", "")
        rows.append((meaning, *run.result(name), unit))
    return pd.DataFrame(rows, columns=["quantity", "value", "error", "unit"], index=pd.Index(names, name="term"))


def literature(system: Mapping[str, Any]) -> pd.DataFrame:
    """Published values at the densities and temperatures of a system; sources in the head of data/literature.csv.

    Per atom: E, F, K, V in Ha, S in k_B, P in GPa. N and twists differ from row to row, and so do the finite-size
    errors: compare like with like. F and S hold for hydrogen: they are left out for other nuclei.

    Args:
        system: as `RunFolder.system`; needs rs and temperature_kelvin, or states.
    """
    table = literature_table()
    blocks = []
    for state in states_of(system):
        same_rs = (table["rs"] - state.rs).abs() < 1e-6
        same_temperature = (table["T_kelvin"] - state.temperature_kelvin).abs() < 1e-6
        blocks.append(table[same_rs & same_temperature])
    found = pd.concat(blocks) if blocks else table[:0]
    if not is_hydrogen(system):
        found = found.drop(columns=["F", "S"])
    return found.dropna(axis="columns", how="all").reset_index(drop=True)
