"""A run's folder, and the run at one of its states: config, training steps, the result of `test` with its g(r)."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from lightning_vfe.analysis.files import (
    metrics_states,
    read_config,
    read_metrics,
    read_summary,
    read_table,
    state_columns,
    state_rows,
    state_summary,
    summary_states,
)
from lightning_vfe.analysis.states import GROUND_STATES, State, states_of


def tables_folder(run_dir: Path, proton_sampling: str) -> Path:
    """Where `test` writes summary.json and pair_correlation.csv: the run folder.

    For protons of exp(-E/kT) it is RUN/ceimc, so that the results of p(x) stay.
    """
    return run_dir / "ceimc" if proton_sampling == "ceimc" else run_dir


@dataclass(frozen=True)
class RunFolder:
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
        return read_config(self._file("config.yaml", "fit"))

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row for every training step, by `step`: each term, its `_error`, acceptances and further diagnostics.

        With several states the columns of each end in `@` and the state's suffix (states.py). The errors are those of a
        single step, from the scatter of its walkers: for watching a run. Results come from `summary`.
        """
        file = self._file("metrics.csv", "fit")
        table = read_metrics(file)
        if table.empty:
            raise ValueError(f"{file} holds no steps; let fit run longer")
        # values of one step that were logged in several rows become one
        return table.groupby("step").last()

    @cached_property
    def summary(self) -> dict[str, Any]:
        """What `test` found: {"value":, "error":} of each term, diagnostics, converged, reasons, system.

        With several states the terms stand in the list `states`, one entry for each.
        """
        file = self._file("summary.json", "test")
        content = read_summary(file)
        states = summary_states(content, file)
        return state_summary(content, states[0], file) if len(states) == 1 else content

    @cached_property
    def pair_correlation(self) -> pd.DataFrame:
        """g(r) of all kinds of pairs, each with its `_error`, by the distance `r_bohr`.

        With several states, `rs` and `temperature_kelvin` are further columns.
        """
        return read_table(self._file("pair_correlation.csv", "test"), "r_bohr").set_index("r_bohr")

    @cached_property
    def structure_factor(self) -> pd.DataFrame:
        """S(k) of all kinds, each with its `_error`, by the wavenumber `k_per_bohr`; states as in g(r)."""
        return read_table(self._file("structure_factor.csv", "test"), "k_per_bohr").set_index("k_per_bohr")

    @cached_property
    def momentum_distribution(self) -> pd.DataFrame:
        """n(k) of the electrons with `n_error` and `multiplicity`, by `k_per_bohr`; states as in g(r)."""
        return read_table(self._file("momentum_distribution.csv", "test"), "k_per_bohr").set_index("k_per_bohr")

    @cached_property
    def states(self) -> tuple[State, ...]:
        """The states of the run; none where no file names one.

        They come from the config, else from the summary, else from the columns of metrics.csv.

        Raises:
            ValueError: config.yaml and summary.json do not hold the same states.
        """
        in_summary = summary_states(self.summary, self.folder / "summary.json") if self.tested else ()
        system, file = self._given_system, self.folder / "config.yaml"
        if not system.get("rs") and not system.get("states"):
            in_metrics = metrics_states(list(self.metrics), self.folder / "metrics.csv") if self.fitted else ()
            return in_summary or in_metrics
        try:
            states = states_of(system)
        except ValueError as error:
            raise ValueError(f"{file if file.is_file() else self.folder / 'summary.json'}: {error}") from error
        if self.tested and (len(states) > 1 or in_summary):
            self._check_summary(states, in_summary)
        return states

    @property
    def views(self) -> tuple[RunFolder, ...]:
        """The run at each of its states: `of_state` for all of them."""
        return tuple(self.of_state(number) for number in range(max(1, len(self.states))))

    def of_state(self, which: int | State) -> RunFolder:
        """The run as if it held one of its states alone: what reads or draws a run of one state takes it.

        Args:
            which: the state, or its number in `states`.

        Raises:
            ValueError: the run has no such state.
        """
        if len(self.states) <= 1 and which in (0, -1, *self.states):
            return self
        try:
            state = self.states[which] if isinstance(which, int) else which
            return RunAtState(self.folder, self, self.states[self.states.index(state)])
        except (IndexError, ValueError):
            known = "; ".join(state.label for state in self.states)
            raise ValueError(f"{self.folder} has no state {which}; it holds {len(self.states)}: {known}") from None

    @property
    def system(self) -> dict[str, Any]:
        """num_atoms, protons (sampled or fixed), nucleus, rs in bohr, temperature_kelvin (0 for fixed protons), ...

        From the config or else the summary; empty where the folder has neither. With several states, `states` lists
        [rs, temperature_kelvin] of each in place of rs and temperature_kelvin.
        """
        system = self._given_system
        if len(self.states) > 1:
            system["states"] = [[state.rs, state.temperature_kelvin] for state in self.states]
            return {key: value for key, value in system.items() if key not in ("rs", "temperature_kelvin")}
        for key in ("rs", "temperature_kelvin"):  # a list of one, or one in `states`
            if self.states and (isinstance(system.get(key), list) or system.get("states")):
                system[key] = getattr(self.states[0], key)
        if system.get("protons") in GROUND_STATES:
            system["temperature_kelvin"] = 0.0
        return system

    def result(self, term: str, state: int | State | None = None) -> tuple[float, float]:
        """Value and standard error that `test` found; nan for what it does not report.

        Args:
            term: by its name in summary.json.
            state: the state or its number; a run of a single state needs none.

        Raises:
            ValueError: the run holds several states and none is given, or not this one.
        """
        if state is not None:
            return self.of_state(state).result(term)
        if len(self.states) > 1:
            raise ValueError(f"{self.folder} holds {len(self.states)} states; give one of them, such as state=0")
        found = self.summary.get(term)
        if not isinstance(found, Mapping):
            return math.nan, math.nan
        value, error = found.get("value"), found.get("error")
        return (math.nan if value is None else float(value)), (math.nan if error is None else float(error))

    @property
    def _given_system(self) -> dict[str, Any]:
        """The system as the files have it."""
        system: dict[str, Any] = {}
        if self.tested:
            system |= self.summary.get("system", {})
        if (self.folder / "config.yaml").is_file():
            system |= self.config["system"]
        return system

    def _check_summary(self, states: tuple[State, ...], in_summary: tuple[State, ...]) -> None:
        expected, found = ({state.suffix: state for state in group} for group in (states, in_summary))
        different = [state for name, state in (expected | found).items() if (name in expected) != (name in found)]
        if different:
            place = ("only in", "") if different[0].suffix in expected else ("not in", " but in summary.json")
            raise ValueError(
                f"{self.folder}: {different[0].label} is {place[0]} config.yaml{place[1]}; "
                f"measure its states with: lightning-vfe test run_dir={self.folder}"
            )

    def _file(self, name: str, verb: str) -> Path:
        file = self.folder / name
        if not file.is_file():
            command = shlex.join(["lightning-vfe", verb, f"run_dir={self.folder}"])
            raise FileNotFoundError(f"{file} is missing; it is written by: {command}")
        return file


@dataclass(frozen=True)
class RunAtState(RunFolder):
    """One state of a run that holds several: each file without what belongs to the other states.

    Args:
        folder: the run folder.
        whole: the run.
        state: one of its states.
    """

    whole: RunFolder
    state: State

    @cached_property
    def config(self) -> dict[str, Any]:
        """The settings of the whole run."""
        return self.whole.config

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """The columns of the state, without its suffix, and those that all states have in common."""
        return state_columns(self.whole.metrics, self.state, self.folder / "metrics.csv")

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The result of the state, in the form of a run of a single state."""
        return state_summary(self.whole.summary, self.state, self.folder / "summary.json")

    @cached_property
    def pair_correlation(self) -> pd.DataFrame:
        """g(r) of the state."""
        return state_rows(self.whole.pair_correlation, self.state, self.folder / "pair_correlation.csv")

    @cached_property
    def structure_factor(self) -> pd.DataFrame:
        """S(k) of the state."""
        return state_rows(self.whole.structure_factor, self.state, self.folder / "structure_factor.csv")

    @cached_property
    def momentum_distribution(self) -> pd.DataFrame:
        """n(k) of the state."""
        return state_rows(self.whole.momentum_distribution, self.state, self.folder / "momentum_distribution.csv")

    @cached_property
    def states(self) -> tuple[State, ...]:
        """The state alone."""
        return (self.state,)

    @property
    def system(self) -> dict[str, Any]:
        """The system, with rs and temperature_kelvin of the state."""
        common = {key: value for key, value in self.whole.system.items() if key != "states"}
        return common | {"rs": self.state.rs, "temperature_kelvin": self.state.temperature_kelvin}
