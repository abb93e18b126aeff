"""A progress bar over the optimizer steps of a run."""

from __future__ import annotations

import sys
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from tqdm import tqdm
from typing_extensions import override


class StepBar(Callback):
    """One bar from the first to the last step, with the logged losses; a line now and then where nobody watches."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin where the run stands."""
        total = trainer.max_steps if trainer.max_steps > 0 else None
        interval = 0.2 if sys.stdout.isatty() else 30.0
        self._bar = tqdm(
            total=total,
            initial=trainer.global_step,
            desc="fit",
            file=sys.stdout,
            mininterval=interval,
            disable=not trainer.is_global_zero,
        )

    @override
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """One step on."""
        assert self._bar is not None
        shown = {name: f"{float(value):.4g}" for name, value in trainer.callback_metrics.items() if "loss" in name}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(trainer.global_step - self._bar.n)

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leave the bar as it stands."""
        self.on_train_end(trainer, pl_module)
