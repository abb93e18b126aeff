"""A stop by a signal that saves."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from lightning_vfe.signals import Stopped, take_signals


class StopOnInterrupt(Callback):
    """Ends a run between two steps.

    The first signal of `signals.STOPPING` lets the running step of `fit` end, after which Lightning stops and the last
    state is saved; a second Ctrl-C stops at once. A run stopped between two steps resumes to the same numbers. Where
    there is nothing to save, that is before the first step and in `validate` and `test`, the first one stops at once.

    All processes stop after the same step, whichever of them the signal reaches.

    Args:
        say: called with a line when the first signal arrives.
    """

    def __init__(self, say: Callable[[str], None] = lambda _line: None) -> None:
        self.say = say
        self.received = 0
        self._speaks = False
        self._has_begun = False

    def _take(self, trainer: L.Trainer) -> None:
        """Take over the signals. Lightning gives them back at the end of the run, whatever ends it.

        Its own handler of SIGTERM sends messages between the processes in the middle of others.
        """
        self.received, self._speaks, self._has_begun = 0, trainer.is_global_zero, False
        take_signals(self._on_signal)

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take over the signals."""
        self._take(trainer)

    @override
    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take over the signals, unless this is the validation of a `fit`."""
        if trainer.state.fn != "fit":
            self._take(trainer)

    @override
    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take over the signals."""
        self._take(trainer)

    @override
    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """From here on a step is worth its end."""
        self._has_begun = True

    @override
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Stop all processes after the same step."""
        own = torch.tensor(self.received, device=trainer.strategy.root_device)
        self.received = int(trainer.strategy.reduce(own, reduce_op="max"))
        if self.received:
            trainer.should_stop = True
            if not trainer.is_last_batch:
                trainer.limit_val_batches = 0  # or Lightning would validate in the middle of an epoch

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        is_second = self.received == number == signal.SIGINT
        self.received = number
        if is_second or not self._has_begun:
            raise Stopped(number)
        if self._speaks:
            again = " (Ctrl-C again stops at once)" if number == signal.SIGINT else ""
            self.say(f"\n{signal.Signals(number).name}: ending this step, then saving{again}")
