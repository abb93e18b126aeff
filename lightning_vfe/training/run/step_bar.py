"""How far `fit`, `validate` and `test` are."""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import pairwise
from statistics import median
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from typing_extensions import override

from lightning_vfe.physics.memory import peak_memory, size_text
from lightning_vfe.progress import ProgressLine, words

PROBED = 3
"""Steps that are timed after a first one, which is slower."""


class Pace:
    """How long a step takes, from the first few of them."""

    def __init__(self) -> None:
        self._ends: list[float] = []

    def count(self) -> None:
        """A step has ended, or the first one begins."""
        self._ends.append(time.monotonic())

    @property
    def is_known(self) -> bool:
        """Whether enough steps have ended."""
        return len(self._ends) > 1 + PROBED

    @property
    def seconds(self) -> float:
        """Of a step, the median; the first one is left out where there are others."""
        spent = [after - before for before, after in pairwise(self._ends)]
        return median(spent[1:] or spent or [0.0])


class StepBar(ProgressBar):
    """The optimizer steps of `fit`, the measured steps of `validate` and `test`, and the logged losses.

    On a terminal it is one line, elsewhere a line with a time stamp now and then. After the first steps a line says how
    long the others will take, and how much memory the process has taken.

    Args:
        progress_seconds: between two lines in a pipe or a file.

    Raises:
        SettingError: progress_seconds is not positive.
    """

    def __init__(self, progress_seconds: float = 30.0) -> None:
        super().__init__()
        self.line = ProgressLine(progress_seconds)
        self.is_shown = True
        self.pace = Pace()
        self._begun = ""  # the verb whose first step has begun

    @override
    def disable(self) -> None:
        """Show nothing, as on all processes but the first."""
        self.is_shown = False

    @override
    def enable(self) -> None:
        """Show it again."""
        self.is_shown = True

    def values(self, trainer: L.Trainer, _module: L.LightningModule, _batch: Any) -> dict[str, str]:
        """What stands behind the count, the most important first."""
        return {name: f"{float(value):.4g}" for name, value in trainer.callback_metrics.items() if "loss" in name}

    def track(self, what: str, parts: Iterable[int], total: int) -> Iterable[int]:
        """The parts of other work, such as the sweeps of an equilibration, each shown when it is through."""
        return self.line.track(what, parts, total) if self.is_shown else parts

    def _show(self, what: str, done: int, total: float, values: dict[str, str]) -> None:
        if not self.is_shown:
            return
        limit = int(total) if 0 < total < float("inf") else None
        self.line.show(what, done, limit, values)
        if not self.pace.is_known:
            self.pace.count()
            if self.pace.is_known and done != limit:
                self.say_cost(what, self.pace.seconds, done, total)

    def begin(self, what: str, done: int, total: float, _batch: Any) -> None:
        """Show where the run stands before its first step."""
        self._show(what, done, total, {})

    def say_cost(self, what: str, seconds: float, done: int, total: float, note: str = "") -> None:
        """Say how long the other steps take, and how much memory the process has taken.

        Args:
            what: the verb.
            seconds: of a step.
            done: steps that are through.
            total: all steps; infinite or negative where nothing limits them.
            note: on the time.
        """
        if not self.is_shown:
            return
        memory = size_text(peak_memory(self.trainer.strategy.root_device))
        left = ""
        if 0 < total < float("inf"):
            left = f"about {words(seconds * (total - done))} for {total - done:.0f} {'more ' if done else ''}steps, "
        self.line.say(f"{what}: {left}{seconds:.2g} s each{note}; {memory} of memory so far")

    # --- hooks ------------------------------------------------------------------------------------------------------

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Begin where the run stands."""
        self._begin_once("fit", trainer.global_step, _fit_steps(trainer), batch)

    @override
    def on_test_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Begin at zero."""
        self._begin_once("test", 0, sum(trainer.num_test_batches), batch)

    @override
    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Begin at zero."""
        if trainer.state.fn == "validate":
            self._begin_once("validate", 0, sum(trainer.num_val_batches), batch)

    def _begin_once(self, what: str, done: int, total: float, batch: Any) -> None:
        if self._begun != what:
            self._begun = what
            self.begin(what, done, total, batch)

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """One step on."""
        self._show("fit", trainer.global_step, _fit_steps(trainer), self.values(trainer, pl_module, batch))

    @override
    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        """One step of `validate` on; a validation in the midst of `fit` shows nothing."""
        if trainer.state.fn == "validate":
            total = sum(trainer.num_val_batches)
            self._show("validate", args[0] + 1, total, self.values(trainer, pl_module, batch))

    @override
    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        """One step of `test` on."""
        total = sum(trainer.num_test_batches)
        self._show("test", args[0] + 1, total, self.values(trainer, pl_module, batch))

    @override
    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Leave the line as it stands."""
        self.line.close()
        self._begun = ""

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leave the line as it stands."""
        self.line.close()


def _fit_steps(trainer: L.Trainer) -> float:
    """The last step of `fit`; infinite or negative where nothing limits it."""
    if trainer.max_steps > 0 or trainer.max_epochs is None:
        return trainer.max_steps
    return trainer.max_epochs * trainer.num_training_batches


def tracked(trainer: L.Trainer | None, what: str, parts: Iterable[int], total: int) -> Iterable[int]:
    """The parts of other work than steps; the trainer's bar shows how far they are, if it can."""
    bar = None if trainer is None else trainer.progress_bar_callback
    return bar.track(what, parts, total) if isinstance(bar, StepBar) else parts
