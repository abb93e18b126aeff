"""F, E and P with their covariance at every state of one or several runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lightning_vfe.analysis.run import RunFolder
from lightning_vfe.analysis.states import State
from lightning_vfe.errors import SettingError
from lightning_vfe.physics.finite_size import two_body_corrections
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.units import HARTREE_PER_BOHR3_TO_GPA, KELVIN_TO_HARTREE

MEASURED = ("free_energy_per_atom", "energy_per_atom", "pressure_gpa")
"""What the surface is fitted to, by the names of summary.json."""
SYMBOLS = ("F", "E", "P")
SHRINKAGE = 1e-3
"""By which the correlations are lowered."""
COMMON: dict[str, Any] = {"num_atoms": None, "nucleus": "H", "protons": "sampled"}
"""What all runs must share, and what holds where a folder does not say it."""
COMMON_SETTINGS = (("base", "_target_"), ("base", "potential_path"), ("system", "twists"), ("system", "twist_shift"))
"""The same of config.yaml, where a folder has one."""


@dataclass(frozen=True)
class Point:
    """What `test` found at one state.

    Attributes:
        state: rs in bohr and T in kelvin.
        values: F and E in Ha per atom, P in Ha/bohr^3; F is nan where it is refused.  # (3,)
        covariance: of these.  # (3, 3)
        run: name of the folder.
        converged: whether `test` trusts its averages.
        reasons: why not, and why F is missing.
        shared: covariance of F with F at other states in Ha^2 per atom, where their ln Z come from one problem.
    """

    state: State
    values: np.ndarray
    covariance: np.ndarray
    run: str
    converged: bool = True
    reasons: tuple[str, ...] = ()
    shared: Mapping[State, float] = field(default_factory=dict)

    @property
    def kT(self) -> float:
        """k_B T in Ha."""
        return KELVIN_TO_HARTREE * self.state.temperature_kelvin

    @property
    def entropy(self) -> tuple[float, float]:
        """S = (E - F)/kT in k_B with its error."""
        direction = np.array([-1.0, 1.0, 0.0]) / self.kT
        if not np.isfinite(self.values[0]):
            return math.nan, math.nan
        return float(direction @ self.values), math.sqrt(max(0.0, direction @ self.covariance @ direction))


def collect(runs: Sequence[RunFolder], finite_size: bool = False) -> list[Point]:
    """The points of all runs, by density and then temperature.

    Args:
        runs: tested runs.
        finite_size: add the two-body finite-size corrections to F, E and P. They are those of summary.json, or those of
            plasmons where the cell was too small for `test` to give them. Their own errors are not counted.

    Raises:
        SettingError: no run, runs that do not belong together, T = 0, a state twice or without a result.
        FileNotFoundError: a run that is not tested.
        ValueError: a damaged file, or a run that lacks the result of one of its states.
    """
    if not runs:
        raise SettingError("runs", [], "names no run", "give tested runs, such as: lightning-vfe eos runs/default")
    for run in runs:
        _ = run.summary  # says which command is missing
    check_same_kind(runs)
    points = [_point(view, finite_size) for run in runs for view in run.views]
    known: dict[str, str] = {}
    for point in points:
        if point.state.suffix in known:
            reason = f"hold the state {point.state.label} twice, in {known[point.state.suffix]} and {point.run}"
            raise SettingError("runs", [str(run.folder) for run in runs], reason, "leave one of them out")
        known[point.state.suffix] = point.run
    if not any(np.isfinite(point.values[0]) for point in points):
        reason = "give no F at any state"
        raise SettingError("runs", [str(run.folder) for run in runs], reason, "measure p(x) with lightning-vfe test")
    return sorted(points, key=lambda point: point.state)


def check_same_kind(runs: Sequence[RunFolder]) -> None:
    """Only runs of one N, one nucleus, one base and the same twists lie on one surface.

    Raises:
        SettingError: two that differ, or protons that are not sampled.
    """
    first = runs[0]
    for run in runs:
        _check_temperatures(run)
        pairs = [(f"system.{key}", *(each.system.get(key, other) for each in (first, run)))
                 for key, other in COMMON.items()]  # fmt: skip
        if all((each.folder / "config.yaml").is_file() for each in (first, run)):
            pairs += [
                (f"{group}.{key}", *(_setting(each.config, group, key) for each in (first, run)))
                for group, key in COMMON_SETTINGS
            ]
        for key, one, other in pairs:
            if one != other:
                reason = f"differ in {key}: {one} in {first.folder}, {other} in {run.folder}"
                names = [str(each.folder) for each in runs]
                raise SettingError("runs", names, reason, "an equation of state takes runs of one kind")


def _check_temperatures(run: RunFolder) -> None:
    """F(V, T) needs protons that move, at T > 0."""
    if run.system.get("protons", "sampled") != "sampled":
        reason = "has no sampled protons, T = 0: it has no F(V, T)"
        raise SettingError("runs", run.folder, reason, "give runs with system.protons=sampled")
    for state in run.states:
        if not state.temperature_kelvin > 0:
            reason = f"has a state at rs = {state.rs:g}, T = {state.temperature_kelvin:g} K: T must be positive"
            raise SettingError("runs", run.folder, reason, "leave this run out")


def _setting(config: Mapping[str, Any], group: str, key: str) -> Any:
    return (config.get(group) or {}).get(key)


def _point(view: RunFolder, finite_size: bool) -> Point:
    """The point of a run at one of its states."""
    (state,) = view.states
    found = np.array([view.result(name) for name in MEASURED])  # (3, 2)
    for name, (value, error) in zip(MEASURED[1:], found[1:], strict=True):
        if not (math.isfinite(value) and error > 0.0):
            remedy = f"measure it with: lightning-vfe test run_dir={view.folder}"
            raise SettingError("runs", view.folder, f"has no {name} with an error at {state.label}", remedy)
    reasons = tuple(str(reason) for reason in view.summary.get("reasons", ()))
    negative = view.summary.get("diagnostics", {}).get("negative_determinants") or 0.0
    if not math.isfinite(found[0, 0]) and negative and not reasons:
        reasons = (f"negative determinants ({negative:.1e})",)
    shift = _correction(view, state) if finite_size else np.zeros(3)
    unit = np.array([1.0, 1.0, 1.0 / HARTREE_PER_BOHR3_TO_GPA])
    covariance = _covariance(view, found[:, 1], state)
    return Point(
        state,
        (found[:, 0] + shift) * unit,
        covariance * np.outer(unit, unit),
        view.folder.name,
        bool(view.summary.get("converged", False)),
        reasons,
    )


def _correction(view: RunFolder, state: State) -> np.ndarray:
    """What the two-body corrections add to F and E in Ha per atom and to P in GPa.  # (3,)"""
    names = [f"finite_size_{name}" for name in MEASURED]
    found = np.array([view.result(name)[0] for name in names])
    if np.isfinite(found).all():
        return found
    point = StatePoint(state.rs, state.temperature_kelvin)
    estimates = two_body_corrections(point, int(view.system["num_atoms"]))
    return np.array([estimates[name].value for name in names])


def _covariance(view: RunFolder, errors: np.ndarray, state: State) -> np.ndarray:
    """From the errors and the measured correlations; without these, F and E are correlated so that S has its error.

    The correlations are those of the statistical parts of the errors. Parts of other origin are independent.
    """
    budget = view.summary.get("error_budget") or {}
    parts = [(budget.get(name) or {}).get("statistical") for name in MEASURED]
    statistical = np.array([e if part is None else part for e, part in zip(errors, parts, strict=True)], dtype=float)
    entry = view.summary.get("correlations")
    if entry:
        correlation = np.array(entry["matrix"], dtype=float)
    else:
        correlation, kT = np.eye(3), KELVIN_TO_HARTREE * state.temperature_kelvin
        entropy_error = view.result("entropy_per_atom")[1]
        product = 2.0 * statistical[0] * statistical[1]
        shared = (statistical[0] ** 2 + statistical[1] ** 2 - (kT * entropy_error) ** 2) / product if product else 0.0
        correlation[0, 1] = correlation[1, 0] = float(np.clip(np.nan_to_num(shared), -0.99, 0.99))
    # correlations that are known from a few samples may be degenerate
    covariance = (1.0 - SHRINKAGE) * correlation * np.outer(statistical, statistical)
    np.fill_diagonal(covariance, errors**2)
    return covariance
