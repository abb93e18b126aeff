"""Callbacks that keep a run folder whole: the last checkpoints, and the config inside them."""

import math
import os
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, Checkpoint
from typing_extensions import override

from lightning_vfe.errors import SettingError
from lightning_vfe.training.run.checkpoint_files import AtomicCheckpointIO, CheckpointFolder
from lightning_vfe.training.run.loggers import MetricsCSVLogger

CONFIG_KEY = "lightning_vfe_config"
"""Entry of a checkpoint that holds the run's config as YAML text."""


class LastCheckpoint(Checkpoint):
    """Saves `dirpath/last.ckpt` every few steps or minutes and at the end of `fit`; keeps the last as `step-N.ckpt`.

    The last state, never the one of lowest F: the minimum of noisy values is biased low. Runs after all other
    callbacks. A state that is broken is not saved, so that it never takes the place of a good one: one of which another
    callback says so, by an attribute `is_broken` that is true, or one whose parameters are not finite. A killed run
    leaves whole files (checkpoint_files.py), and is resumed from the last of them to the same numbers and the same
    table of metrics.

    Args:
        dirpath: folder of the checkpoints.
        every_n_steps: optimizer steps between two saves.
        every_minutes: minutes between two saves, where these are fewer; None counts steps only.
        keep_last: saves that are kept.

    Raises:
        FloatingPointError: `fit` ends with parameters that are not finite, and the module has kept none with a finite
            `best_loss` before.
        ValueError: a setting is not a positive number.
    """

    def __init__(
        self,
        dirpath: str | os.PathLike[str],
        every_n_steps: int = 50,
        keep_last: int = 3,
        every_minutes: float | None = 10.0,
    ) -> None:
        for name, value, usual in (("every_n_steps", every_n_steps, 50), ("keep_last", keep_last, 3)):
            if value < 1:
                raise SettingError(name, value, f"must be at least 1, such as {usual}")
        if every_minutes is not None and not every_minutes > 0:
            raise SettingError("every_minutes", every_minutes, "must be positive, such as 10, or null")
        self.folder = CheckpointFolder(dirpath, keep_last)
        self.every_n_steps, self.every_minutes = every_n_steps, every_minutes
        self._saved_at = time.monotonic()
        self._saved_step = 0
        self._is_pending = False

    @property
    def file(self) -> Path:
        """The newest checkpoint."""
        return self.folder.last

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Whatever the trainer saves from here on is written whole or not at all."""
        if stage == "fit":
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A resumed run logs again what was logged after its checkpoint."""
        self._saved_step, self._is_pending = trainer.global_step, False
        self._saved_at = time.monotonic()
        if trainer.is_global_zero:
            self.folder.clean()
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCSVLogger):
                logger.forget_from(trainer.global_step)

    @override
    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """The step before has been logged: its checkpoint counts from now on."""
        self._commit(trainer)

    @override
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Save when enough steps or minutes have passed since the last save, or when the run is about to stop.

        A step that a validation follows is saved after it.
        """
        if self._is_due(trainer) and not (trainer.is_last_batch and any(trainer.num_val_batches)):
            self._save(trainer)

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save what the validation at the end of an epoch of `fit` has changed, too."""
        if trainer.state.fn == "fit" and self._is_due(trainer):
            self._save(trainer)

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """All steps of the epoch have been logged."""
        self._commit(trainer)

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the end of a run that its number of epochs has ended."""
        if trainer.global_step > self._saved_step and not _is_broken(trainer):
            self._save(trainer)
        self._commit(trainer)
        broken, has_result = _broken_parameter(pl_module), math.isfinite(getattr(pl_module, "best_loss", math.inf))
        if broken and not has_result:
            what = f"{broken} is not finite after {trainer.global_step} steps"
            raise FloatingPointError(f"{what}, and this state is not saved: lower the learning rates")
        trainer.strategy.barrier()  # a cluster may end all processes with the first one that is through

    def _is_due(self, trainer: L.Trainer) -> bool:
        new_steps = trainer.global_step - self._saved_step
        if new_steps == 0 or _is_broken(trainer):
            return False
        is_last = trainer.should_stop or trainer.global_step == trainer.max_steps
        return new_steps >= self.every_n_steps or is_last or self._is_time(trainer)

    def _is_time(self, trainer: L.Trainer) -> bool:
        """Whether enough minutes have passed on any process: all of them save together."""
        if self.every_minutes is None:
            return False
        own = time.monotonic() - self._saved_at >= 60.0 * self.every_minutes
        return bool(trainer.strategy.reduce_boolean_decision(own, all=False))

    def _save(self, trainer: L.Trainer) -> None:
        if _broken_parameter(trainer.lightning_module):
            return
        trainer.save_checkpoint(self.folder.pending)
        self._saved_step, self._is_pending, self._saved_at = trainer.global_step, True, time.monotonic()

    def _commit(self, trainer: L.Trainer) -> None:
        if self._is_pending and trainer.is_global_zero:
            self.folder.commit(self._saved_step)
        self._is_pending = False


class EmbedConfig(Callback):
    """Writes the run's config into every checkpoint, so that a checkpoint names its system.

    Args:
        config: the config as YAML text.
    """

    def __init__(self, config: str) -> None:
        self.config = config

    @override
    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the entry CONFIG_KEY."""
        checkpoint[CONFIG_KEY] = self.config


def _is_broken(trainer: L.Trainer) -> bool:
    """Whether a callback keeps the present state out of the files."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return any(getattr(callback, "is_broken", False) for callback in callbacks)


def _broken_parameter(module: L.LightningModule) -> str | None:
    """Name of a parameter that is not finite."""
    return next((name for name, value in module.named_parameters() if not bool(value.isfinite().all())), None)
