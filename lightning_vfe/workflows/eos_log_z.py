"""What the errors of F at several states have in common: ln Z of one problem."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lightning_vfe.analysis.eos.points import Point
from lightning_vfe.analysis.eos.surface import kelvin_to_kT
from lightning_vfe.analysis.run import RunFolder
from lightning_vfe.analysis.states import State
from lightning_vfe.models.base.log_z import LogZEntry, joint_covariance, log_z_file, read_entries
from lightning_vfe.resources import data_file

SAME_ERROR = 1e-3
"""Relative difference of two errors of ln Z that are still those of one entry."""


def with_shared_errors(points: Sequence[Point], runs: Sequence[RunFolder]) -> tuple[list[Point], list[str]]:
    """The points with the covariance of F by the common ln Z of their base, and a line for each run without it.

        cov(F_i, F_j) = kT_i kT_j cov(ln Z_i, ln Z_j) / N^2    per atom, i != j.

    The variance of each F holds that of its ln Z already. ln Z stands in the file that the settings of a run name. Its
    entries count where their errors are those that `test` has used.

    Args:
        points: of all runs.
        runs: the folders.

    Raises:
        SettingError: the file of ln Z is damaged.
    """
    entries, lines = dict[State, LogZEntry](), list[str]()
    for run in runs:
        used = {view.states[0]: error for view in run.views if (error := _log_z_part(view)) > 0.0}
        file = _file(run)
        stored = read_entries(file) if used and file else []
        found = {state: entry for state in used if (entry := _entry(stored, run, state, used[state])) is not None}
        entries |= found
        if missing := [state.label for state in used if state not in found]:
            lines.append(
                f"errors of ln Z are taken as independent at {'; '.join(missing)} of {run.folder.name}: "
                f"{file or 'no file'} does not hold the ln Z that test has used"
            )
    return _joined(points, entries), lines


def _joined(points: Sequence[Point], entries: dict[State, LogZEntry]) -> list[Point]:
    known = [point for point in points if point.state in entries]
    covariance = joint_covariance([entries[point.state] for point in known])
    shared = {
        one.state: {
            other.state: one.kT * other.kT * float(covariance[i, j]) / entries[one.state].num_atoms ** 2
            for j, other in enumerate(known)
            if i != j and covariance[i, j] != 0.0
        }
        for i, one in enumerate(known)
    }
    return [replace(point, shared=shared.get(point.state, {})) for point in points]


def _log_z_part(view: RunFolder) -> float:
    """The error of F per atom in Ha by ln Z; zero where the base has none."""
    budget = (view.summary.get("error_budget") or {}).get("free_energy_per_atom") or {}
    return float(budget.get("log_z") or 0.0)


def _file(run: RunFolder) -> Path | None:
    """The file of ln Z that config.yaml names: of the base, or of the potential of `log-z`."""
    if not (run.folder / "config.yaml").is_file():
        return None
    base = run.config.get("base") or {}
    potential = base.get("potential_path") or (run.config.get("potential") or {}).get("path")
    given = base.get("log_z_path") or run.config.get("log_z_path")
    if given is not None:
        return Path(str(given))
    return None if potential is None else log_z_file(data_file(str(potential)))


def _entry(stored: Sequence[LogZEntry], run: RunFolder, state: State, error: float) -> LogZEntry | None:
    """The entry of a state with the error of F per atom that `test` has used."""
    num_atoms, kT = int(run.system["num_atoms"]), float(kelvin_to_kT(state.temperature_kelvin))
    for entry in stored:
        if entry.is_at(num_atoms, state.rs, state.temperature_kelvin):
            same = math.isclose(kT * entry.log_z_error / num_atoms, error, rel_tol=SAME_ERROR)
            return entry if same else None
    return None
