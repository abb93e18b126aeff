"""What a run costs: a few of its sweeps and steps, timed."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable, Iterator
from statistics import median
from typing import Any

import lightning as L
import torch
from typing_extensions import override

from lightning_vfe.training.run.step_bar import StepBar

PROBED = 3
"""Steps that are timed after a first one, which is slower."""


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
        self._ends: list[float] = []

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
        if not self._ends:
            self.num_steps = int(total) - (done if what == "fit" else 0) if 0 < total < float("inf") else None
        self._ends.append(time.monotonic())
        if len(self._ends) > 1 + PROBED or done == total:
            spent = [after - before for before, after in zip(self._ends, self._ends[1:], strict=False)]
            self.step_seconds = median(spent[1:] or spent or [0.0])
            raise Enough


def peak_memory(device: torch.device) -> int:
    """Bytes of memory that this process has taken at most on a device."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
