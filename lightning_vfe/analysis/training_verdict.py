"""Whether a training is finished: F and the variance of E_loc over the last quarter of its steps, and the virial."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import t

from lightning_vfe.analysis.files import state_columns
from lightning_vfe.analysis.folder import RunFolder
from lightning_vfe.analysis.psi_gap import FREE_ENERGY, VARIANCE
from lightning_vfe.analysis.states import State
from lightning_vfe.analysis.terms import value_in_brackets
from lightning_vfe.errors import one_line
from lightning_vfe.physics.statistics import integrated_autocorrelation_time

LEAST_STEPS = 20
"""Steps of the last quarter: of fewer nothing can be said."""
CHANCE = 0.01
"""Probability that a training whose F stands still is said to fall or to rise."""
LEAST_FALL = 0.1
"""Of the variance of E_loc, as a fraction of its mean: a smaller fall in a quarter of the training does not count."""
STEEPEST = 0.5
"""dF / d(variance per atom) in 1/Ha where it is not known. Trainings of hydrogen have 0.1 to 0.4."""
MAX_EXCESS_SIGMAS = 4.0
"""Standard errors by which the virial pressure may deviate from -dE/dV of the same psi."""
RESUME = "resume with fit ckpt_path=last and a larger trainer.max_steps"


class Measured(NamedTuple):
    """What `test` knows of a state point, against which its training is judged.

    Attributes:
        error: one standard error of F, in Ha per atom.
        virial: virial pressure against -dE/dV of psi; None where it is not known.
        steepness: dF / d(variance of E_loc per atom) along the training, in 1/Ha; None where it is not known.
    """

    error: float
    virial: Virial | None = None
    steepness: float | None = None


class Virial(NamedTuple):
    """What a measurement says about the virial pressure, see physics/scaling.py.

    Attributes:
        excess: virial pressure minus -dE/dV of psi with its parameters, in GPa.
        error: one standard error of the excess.
        pressure_error: that of the virial pressure.
    """

    excess: float
    error: float
    pressure_error: float

    @property
    def is_wrong(self) -> bool:
        """Whether the deviation is no noise, and larger than the error of the pressure."""
        return abs(self.excess) > max(MAX_EXCESS_SIGMAS * self.error, self.pressure_error)

    @property
    def reason(self) -> str:
        """What is wrong, and what to do."""
        deviation, side = value_in_brackets(abs(self.excess), self.error), "above" if self.excess > 0 else "below"
        return f"the virial pressure lies {deviation} GPa {side} -dE/dV of this psi, which is not stationary; {RESUME}"


@dataclass(frozen=True)
class Trend:
    """The line through the last quarter of a training.

    Attributes:
        slope: per step.
        error: one standard error of the slope.
        mean: of the quarter.
        num_steps: of the quarter.
    """

    slope: float
    error: float
    mean: float
    num_steps: int

    @property
    def change(self) -> float:
        """Of the line from the first to the last step of the quarter."""
        return self.slope * self.num_steps

    @property
    def is_significant(self) -> bool:
        """Whether noise alone gives such a slope with a probability of at most CHANCE."""
        return abs(self.slope) > float(t.isf(CHANCE / 2, self.num_steps - 2)) * self.error


def last_quarter(series: pd.Series) -> Trend:
    """The least-squares line through the last quarter of the steps.

    The error is that of independent residuals times the square root of their integrated autocorrelation time.

    Args:
        series: one value for each step; steps that are not finite are left out.

    Raises:
        ValueError: fewer than 80 steps.
    """
    finite = series[np.isfinite(series)]
    values = finite.to_numpy()[-(len(finite) // 4) :]
    if len(finite) // 4 < LEAST_STEPS:
        raise ValueError(f"{len(finite)} training steps can be used, and {4 * LEAST_STEPS} are needed")
    count = len(values)
    time = np.arange(count) - 0.5 * (count - 1)
    spread = float(time @ time)
    slope = float(time @ values) / spread
    residuals = values - values.mean() - slope * time
    correlation = integrated_autocorrelation_time(residuals[:, None])
    error = math.sqrt(float(residuals @ residuals) / (count - 2) * correlation / spread)
    return Trend(slope, error, float(values.mean()), count)


def judge_training(
    run_dir: Path, last_step: int, states: Mapping[State, Measured], several: bool, num_atoms: int
) -> dict[str, Any]:
    """The verdict on the training in a run folder.

    F still falls, or rises, where its slope over the last quarter of the steps is no noise, and a further quarter with
    this slope would change F by more than the error of F of `test`. The variance of E_loc still falls where it fell by
    more than a tenth, its slope is no noise, and such a fall changes F by more than its error: near the exact psi, F
    is linear in this variance. The virial pressure is wrong where it deviates from -dE/dV of the same psi by more than
    its own error, and this is no noise.

    Args:
        run_dir: the run folder.
        last_step: training steps of the measured parameters.
        states: what `test` found, by state point.
        several: whether the run has several state points.
        num_atoms: N.

    Returns:
        `ok`, which is None where nothing is known, and `reasons`; with one state point also the slopes per step.
    """
    file, numbers = run_dir / "metrics.csv", dict[str, Any]()
    virials = {state: measured.virial for state, measured in states.items() if measured.virial is not None}
    wrong = {state: virial.reason for state, virial in virials.items() if virial.is_wrong}
    reasons = [f"{state.label}: {reason}" if several else reason for state, reason in wrong.items()]
    excess = {}
    if virials and not several:
        (virial,) = virials.values()
        excess["virial_excess"] = _number(virial.excess, virial.error, "GPa")
    try:
        if not file.is_file():
            raise ValueError("the run folder holds no metrics.csv of the training")
        metrics = RunFolder(run_dir).metrics
        for state, measured in states.items():
            own = state_columns(metrics, state, file) if several else metrics
            own = own[own.index < last_step]
            missing = {FREE_ENERGY, VARIANCE} - set(own)
            if missing:
                raise ValueError(f"{file} has no column {min(missing)}")
            energy, variance = last_quarter(own[FREE_ENERGY]), last_quarter(own[VARIANCE] / num_atoms)
            where = f"{state.label}: " if several else ""
            reasons += [where + reason for reason in _reasons(energy, variance, measured)]
            numbers = {
                "steps": energy.num_steps,
                "free_energy_slope": _number(energy.slope, energy.error, "Ha/atom/step"),
                "variance_per_atom": {"value": variance.mean, "unit": "Ha^2/atom"},
                "variance_slope": _number(variance.slope, variance.error, "Ha^2/atom/step"),
            }
    except (ValueError, OSError) as error:
        return {"ok": False if reasons else None, "reasons": [*reasons, one_line(error)]} | excess
    return {"ok": not reasons, "reasons": reasons} | ({} if several else numbers) | excess


def _reasons(energy: Trend, variance: Trend, measured: Measured) -> list[str]:
    found, steps = [], f"in the last {energy.num_steps} steps"
    if energy.is_significant and abs(energy.change) > measured.error:
        changed = value_in_brackets(abs(energy.change), energy.error * energy.num_steps)
        if energy.slope < 0:
            found.append(f"F fell by {changed} Ha/atom {steps}; {RESUME}")
        else:
            found.append(f"F rose by {changed} Ha/atom {steps}; lower the learning rates or the norms of the optimizer")
    steepness = STEEPEST if measured.steepness is None else measured.steepness
    matters = -variance.change > LEAST_FALL * variance.mean and -variance.change * steepness > measured.error
    if variance.is_significant and matters:
        percent = 100 * -variance.change / variance.mean
        found.append(f"the variance of E_loc fell by {percent:.0f} % of its mean {steps}; {RESUME}")
    return found


def training_line(verdict: Mapping[str, Any]) -> str:
    """The verdict in one line, as `test` prints it where there is nothing to complain of."""
    return "; ".join([_training_text(verdict), *_virial_text(verdict)])


def _training_text(verdict: Mapping[str, Any]) -> str:
    if verdict["ok"] is None:
        return f"training not judged: {'; '.join(verdict['reasons'])}"
    if "free_energy_slope" not in verdict:
        return "training: converged; F no longer falls"
    slope, steps = verdict["free_energy_slope"], verdict["steps"]
    change = value_in_brackets(slope["value"] * steps, slope["error"] * steps)
    return f"training: converged; F changed by {change} Ha/atom in the last {steps} steps"


def _virial_text(verdict: Mapping[str, Any]) -> list[str]:
    """The virial pressure against -dE/dV, of one state point."""
    if "virial_excess" not in verdict:
        return []
    excess = verdict["virial_excess"]
    return [f"virial P + dE/dV = {value_in_brackets(excess['value'], excess['error'])} GPa"]


def training_note(run: RunFolder) -> str:
    """Why the training of a run cannot count as finished, in one line; nothing where it can.

    The verdict that `test` has stored comes first. Without one, only F is looked at, at the state where it falls most.
    """
    verdict = (run.summary.get("verdicts") or {}).get("training") if run.tested else None
    if verdict is not None:
        reasons = "; ".join(map(str, verdict.get("reasons") or ["no reason is stored"]))
        return {True: "", False: reasons}.get(verdict.get("ok"), f"training not judged: {reasons}")
    if not run.fitted:
        return ""
    try:
        trends = [last_quarter(view.metrics[FREE_ENERGY]) for view in run.views if FREE_ENERGY in view.metrics]
    except ValueError as error:
        return f"training not judged: {one_line(error)}"
    falls = [-trend.change for trend in trends if trend.is_significant and trend.slope < 0]
    return f"F fell by {1000 * max(falls):.2g} mHa/atom in the last quarter of the training" if falls else ""


def _number(value: float, error: float, unit: str) -> dict[str, Any]:
    return {"value": value, "error": error, "unit": unit}
