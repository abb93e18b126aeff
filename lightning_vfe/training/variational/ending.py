"""When `test` has measured enough: its errors are small enough, or its time is over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Timer

from lightning_vfe.analysis.terms import TERMS
from lightning_vfe.errors import SettingError, nearest
from lightning_vfe.training.variational.error_budget import BUDGETED
from lightning_vfe.training.variational.measurement import Measurement
from lightning_vfe.training.variational.metrics import base_errors

FIRST_LOOK = 10
"""Steps before the errors are shown for the first time."""
GROWTH = 1.1
"""From one look to the next the number of steps grows by this factor: many looks would favour errors that are too small
by chance."""


def wanted_errors(target_error: float | Mapping[str, float] | None) -> dict[str, float]:
    """The errors that `test` is to reach, by term.

    Args:
        target_error: that of F per atom in Ha; or by the names of summary.json, {"pressure_gpa": 2.0}; None for none.

    Raises:
        SettingError: an error that is not positive, or of a term that has none.
    """
    if target_error is None:
        return {}
    given = target_error if isinstance(target_error, Mapping) else {"free_energy_per_atom": target_error}
    if not given:
        raise SettingError("target_error", {}, "names no term", "give the error of F in Ha per atom, such as 0.0005")
    for name, error in given.items():
        if name not in BUDGETED:
            reason = f": {name} is no term of it{nearest(str(name), BUDGETED)}"
            raise SettingError("target_error", dict(given), reason, f"there is: {', '.join(BUDGETED)}")
        if isinstance(error, bool) or not isinstance(error, Real) or not 0 < float(error) < math.inf:
            shown = dict(given) if isinstance(target_error, Mapping) else error
            raise SettingError("target_error", shown, "must be positive", "give the error of F in Ha, such as 0.0005")
    return {str(name): float(error) for name, error in given.items()}


class Ending:
    """Looks at a measurement after each step.

    Args:
        wanted: errors to be reached at all state points, by term.
        least: steps before the measurement may end; the errors of fewer are not known well enough.

    Attributes:
        ended_by: `target_error` or `max_time`; empty while neither is reached.
        present: the largest error over the state points at the last look, by term.
    """

    def __init__(self, wanted: Mapping[str, float], least: int) -> None:
        self.wanted, self.least = dict(wanted), least
        self.ended_by = ""
        self.present: dict[str, float] = {}
        self._next = min(FIRST_LOOK, least)

    def check(self, measurement: Measurement) -> None:
        """Refuse an error that no number of steps can reach.

        Raises:
            SettingError: the error of ln Z of the base alone is larger.
        """
        for point in measurement.state.strata.points if self.wanted else ():
            base_error = measurement.base_error(point)
            for name, error in (base_errors(base_error, point.kT) if base_error else {}).items():
                if name in self.wanted and self.wanted[name] <= error:
                    symbol = TERMS[name].plain_symbol
                    reason = f"cannot be reached: the error of ln Z of the base gives {symbol} an error of {error:.2g}"
                    remedy = "give a larger one, or compute ln Z with more samples (lightning-vfe log-z)"
                    raise SettingError("target_error", self.wanted[name], reason, remedy)

    def look(self, measurement: Measurement, trainer: L.Trainer) -> None:
        """Stop the trainer where enough is measured; the first process decides for all of them."""
        steps = measurement.num_steps
        if self.wanted and steps >= self._next:
            self.present = self._largest(measurement)
            following = math.ceil(GROWTH * steps + 0.5)
            self._next = min(following, self.least) if steps < self.least else following
            reached = all(self.present[name] <= error for name, error in self.wanted.items())
            if steps >= self.least and trainer.strategy.broadcast(reached):
                self.ended_by = "target_error"
        if not self.ended_by and _time_is_over(trainer):
            self.ended_by = "max_time"
        trainer.should_stop = bool(self.ended_by)

    def _largest(self, measurement: Measurement) -> dict[str, float]:
        found = [estimates for estimates, _ in measurement.estimates()]
        # nan, where nothing is known yet, is larger than all
        return {
            name: max((state[name].error for state in found), key=lambda error: (math.isnan(error), error))
            for name in self.wanted
        }

    def progress(self) -> dict[str, str]:
        """What stands behind the progress bar: each error so far, and the one that is wanted."""
        return {
            f"error of {TERMS[name].plain_symbol}": f"{error:.2g} (target {self.wanted[name]:g})"
            for name, error in self.present.items()
        }


def _time_is_over(trainer: L.Trainer) -> bool:
    """Whether trainer.max_time has passed since the start of `test`, by the clock of the first process."""
    timers: list[Any] = [each for each in trainer.callbacks if isinstance(each, Timer)]  # type: ignore[attr-defined]
    if not timers:
        return False
    remaining = [timer.time_remaining("test") for timer in timers]
    return bool(trainer.strategy.broadcast(any(left is not None and left <= 0 for left in remaining)))
