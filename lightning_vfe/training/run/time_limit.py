"""trainer.max_time as the longest duration of one command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Timer

from lightning_vfe.errors import SettingError


class TimeLimit(Timer):
    """Ends `fit` after the step in which trainer.max_time passes, and says so; `test` asks it for the time left.

    A resumed run begins its own time: on a cluster this is the time of a job. Lightning's timer would go on with that
    of the command before.

    Args:
        max_time: longest duration: DD:HH:MM:SS, or the arguments of a timedelta.
        say: called with a line at the end.

    Raises:
        SettingError: max_time is no duration.
    """

    def __init__(self, max_time: str | dict[str, int], say: Callable[[str], None]) -> None:
        try:
            super().__init__(duration=max_time, interval="step", verbose=False)
        except (MisconfigurationException, TypeError, ValueError, OverflowError) as error:
            remedy = "give DD:HH:MM:SS such as 00:01:30:00, or {hours: 1, minutes: 30}"
            raise SettingError("trainer.max_time", max_time, "is no duration", remedy) from error
        self.max_time = max_time
        self.say = say

    @property
    def state_key(self) -> str:
        """That of Lightning's timer, which earlier checkpoints hold."""
        return "Timer"

    def state_dict(self) -> dict[str, Any]:
        """Nothing is kept."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing is taken over."""

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say that the run has not made all its steps."""
        super().on_train_end(trainer, pl_module)
        left, last, done = self.time_remaining("train"), trainer.max_steps, trainer.global_step
        if left is not None and left <= 0 and done != last and trainer.is_global_zero:
            steps = f"step {done}" if last == -1 else f"step {done} of {last}"
            self.say(f"trainer.max_time={self.max_time} has passed at {steps}; resume with fit ckpt_path=last")
