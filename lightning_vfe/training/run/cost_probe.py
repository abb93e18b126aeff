"""What a run costs: a few of its sweeps and steps, timed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import lightning as L
from typing_extensions import override

from lightning_vfe.training.run.step_bar import StepBar


class Enough(Exception):
    """The probe has seen what it wanted."""


class CostProbe(StepBar):
    """Times the sweeps of the equilibration and the first steps of `fit`, `validate` or `test`, and ends them.

    Attributes:
        sweep_seconds: of a sweep of the equilibration, 0 where there is none.
        step_seconds: of a step, the median.
        num_steps: that the run has before it; None where nothing limits them.

    Raises:
        Enough: after the last step that is timed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sweep_seconds = self.step_seconds = 0.0
        self.num_steps: int | None = None

    @override
    def track(self, what: str, parts: Iterable[int], total: int) -> Iterator[int]:
        """The parts, timed."""
        for part in parts:
            began = time.monotonic()
            yield part
            self.sweep_seconds = time.monotonic() - began  # the last one: the first is slower

    @override
    def values(self, _trainer: L.Trainer, _module: L.LightningModule, _batch: Any) -> dict[str, str]:
        """Nothing is shown."""
        return {}

    @override
    def _show(self, what: str, done: int, total: float, values: dict[str, str]) -> None:
        if self.num_steps is None and 0 < total < float("inf"):
            self.num_steps = int(total) - (done if what == "fit" else 0)
        self.pace.count()
        if self.pace.is_known or done == total:
            self.step_seconds = self.pace.seconds
            raise Enough
