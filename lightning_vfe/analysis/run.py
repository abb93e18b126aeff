"""Read a run's folder: its config, the training steps, and the result of `test` with its g(r)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from lightning_vfe.analysis.terms import TERMS
from lightning_vfe.resources import resource_folder


@dataclass(frozen=True)
class Run:
    """The folder of a run; each file is read when it is first asked for.

    Args:
        folder: the run folder.

    Raises:
        FileNotFoundError: a file that is asked for is missing; says which command writes it.
        ValueError: a file is damaged or empty.
    """

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))

    @property
    def fitted(self) -> bool:
        """Whether metrics.csv is there; `test` may write into a folder of its own."""
        return (self.folder / "metrics.csv").is_file()

    @property
    def tested(self) -> bool:
        """Whether `test` has written its result."""
        return (self.folder / "summary.json").is_file()

    @cached_property
    def config(self) -> dict[str, Any]:
        """The settings, with every reference inside them resolved."""
        file = self._file("config.yaml", "fit")
        try:
            content: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=True)
        except Exception as error:  # of YAML or of a reference: each library has its own
            raise ValueError(f"{file} cannot be read: {' '.join(str(error).split())}") from error
        if not isinstance(content, dict) or not isinstance(content.get("system"), dict):
            raise ValueError(f"{file} has no settings of a system; give the folder of a run made by fit")
        return content

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row for every training step, by `step`: each term, its `_error`, acceptances and further diagnostics.

        The errors are those of a single step, from the scatter of its walkers: for watching a run. Results come from
        `summary`.
        """
        file = self._file("metrics.csv", "fit")
        table = _read_table(file, "step")
        if table.empty:
            raise ValueError(f"{file} holds no steps; let fit run longer")
        # values of one step that were logged in several rows become one
        return table.groupby("step").last()

    @cached_property
    def summary(self) -> dict[str, Any]:
        """What `test` found: {"value":, "error":} of each term, diagnostics, converged, reasons, system."""
        file = self._file("summary.json", "test")
        try:
            content = json.loads(file.read_text())
        except ValueError as error:
            advice = f"write it again with: lightning-vfe test run_dir={self.folder}"
            raise ValueError(f"{file} is damaged ({error}); {advice}") from error
        if not isinstance(content, dict):
            raise ValueError(f"{file} is no summary; write it with: lightning-vfe test run_dir={self.folder}")
        return content

    @cached_property
    def pair_correlation(self) -> pd.DataFrame:
        """g(r) of all kinds of pairs, each with its `_error`, by the distance `r_bohr`."""
        return _read_table(self._file("pair_correlation.csv", "test"), "r_bohr").set_index("r_bohr")

    @property
    def system(self) -> dict[str, Any]:
        """num_atoms, rs in bohr, protons (sampled or fixed), temperature_kelvin (0 for fixed protons), ...

        From the config or else the summary; empty where the folder has neither.
        """
        system: dict[str, Any] = {}
        if self.tested:
            system |= self.summary.get("system", {})
        if (self.folder / "config.yaml").is_file():
            system |= self.config["system"]
        if system.get("protons") == "fixed":
            system["temperature_kelvin"] = 0.0
        return system

    def result(self, term: str) -> tuple[float, float]:
        """Value and standard error that `test` found; nan for what it does not report."""
        found = self.summary.get(term)
        if not isinstance(found, Mapping):
            return math.nan, math.nan
        value, error = found.get("value"), found.get("error")
        return (math.nan if value is None else float(value)), (math.nan if error is None else float(error))

    def _file(self, name: str, verb: str) -> Path:
        file = self.folder / name
        if not file.is_file():
            command = f"lightning-vfe {verb} run_dir={self.folder}"
            raise FileNotFoundError(f"{file} is missing; it is written by: {command}")
        return file


def load_run(folder: str | Path) -> Run:
    """The run in a folder.

    Raises:
        FileNotFoundError: there is no such folder, or no run in it.
    """
    run = Run(Path(folder))
    if not run.folder.is_dir():
        raise FileNotFoundError(f"run folder {folder} does not exist; start a run with: lightning-vfe fit")
    if not (run.fitted or run.tested):
        raise FileNotFoundError(f"{folder} holds neither metrics.csv nor summary.json; give the folder of a run")
    return run


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


def results_table(run: Run) -> pd.DataFrame:
    """What `test` found: a row for each term (by its name in summary.json) with quantity, value, error and unit.

    The error is one standard error; a value that `test` does not report is nan.
    """
    names = [name for name, entry in run.summary.items() if isinstance(entry, Mapping) and "value" in entry]
    names.sort(key=lambda name: list(TERMS).index(name) if name in TERMS else len(TERMS))
    rows = []
    for name in names:
        meaning, unit = (TERMS[name].meaning, TERMS[name].unit) if name in TERMS else ("", "")
        rows.append((meaning, *run.result(name), unit))
    return pd.DataFrame(rows, columns=["quantity", "value", "error", "unit"], index=pd.Index(names, name="term"))


def literature(system: Mapping[str, Any]) -> pd.DataFrame:
    """Published values at the density and temperature of a system; sources in the head of data/literature.csv.

    Per atom: E, F, K, V in Ha, S in k_B, P in GPa. N and twists differ from row to row, and so do the finite-size
    errors: compare like with like.

    Args:
        system: as `Run.system`; needs rs and temperature_kelvin.
    """
    table = pd.read_csv(resource_folder("data") / "literature.csv", comment="#")
    same_rs = (table["rs"] - system["rs"]).abs() < 1e-6
    same_temperature = (table["T_kelvin"] - system["temperature_kelvin"]).abs() < 1e-6
    return table[same_rs & same_temperature].dropna(axis="columns", how="all").reset_index(drop=True)


def _read_table(file: Path, first_column: str) -> pd.DataFrame:
    """A CSV file of numbers.

    Raises:
        ValueError: it is damaged, or has not the column.
    """
    try:
        table = pd.read_csv(file)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is damaged ({' '.join(str(error).split())}); take an older copy") from error
    if first_column not in table:
        raise ValueError(f"{file} has no column {first_column}; give the folder of a run")
    text = [name for name in table if not pd.api.types.is_numeric_dtype(table[name])]
    if text:
        raise ValueError(f"{file} is damaged (column {text[0]} holds more than numbers); take an older copy")
    return table
