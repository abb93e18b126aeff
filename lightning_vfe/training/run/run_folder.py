"""Callbacks that keep a run folder whole: the last checkpoints, the config inside them, and a stop that saves."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint
from typing_extensions import override

from lightning_vfe.errors import SettingError
from lightning_vfe.training.run.checkpoint_files import AtomicCheckpointIO, CheckpointFolder
from lightning_vfe.training.run.loggers import MetricsCSVLogger

CONFIG_KEY = "lightning_vfe_config"
"""Entry of a checkpoint that holds the run's config as YAML text."""


class LastCheckpoint(Checkpoint):
    """Saves `dirpath/last.ckpt` every few steps and at the end of `fit`; the last few saves stay as `step-N.ckpt`.

    The last state, never the one of lowest F: the minimum of noisy values is biased low. Runs after all other
    callbacks, so that one which stops a broken step keeps it out of the file. A killed run leaves whole files
    (checkpoint_files.py), and goes on from the last of them to the same numbers and the same table of metrics.

    Args:
        dirpath: folder of the checkpoints.
        every_n_steps: optimizer steps between two saves.
        keep_last: saves that are kept.

    Raises:
        ValueError: a setting is not a positive whole number.
    """

    def __init__(self, dirpath: str | os.PathLike[str], every_n_steps: int = 50, keep_last: int = 3) -> None:
        for name, value, usual in (("every_n_steps", every_n_steps, 50), ("keep_last", keep_last, 3)):
            if value < 1:
                raise SettingError(name, value, f"must be at least 1, such as {usual}")
        self.folder = CheckpointFolder(dirpath, keep_last)
        self.every_n_steps = every_n_steps
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
        """Save when every_n_steps steps have passed since the last save, or when the run is about to stop.

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
        if trainer.global_step > self._saved_step:
            self._save(trainer)
        self._commit(trainer)
        trainer.strategy.barrier()  # a cluster may end all processes with the first one that is through

    def _is_due(self, trainer: L.Trainer) -> bool:
        new_steps = trainer.global_step - self._saved_step
        is_last = trainer.should_stop or trainer.global_step == trainer.max_steps
        return new_steps >= self.every_n_steps or (is_last and new_steps > 0)

    def _save(self, trainer: L.Trainer) -> None:
        trainer.save_checkpoint(self.folder.pending)
        self._saved_step, self._is_pending = trainer.global_step, True

    def _commit(self, trainer: L.Trainer) -> None:
        if self._is_pending and trainer.is_global_zero:
            self.folder.commit(self._saved_step)
        self._is_pending = False


class EmbedConfig(Callback):
    """Writes the run's config into every checkpoint, so that a checkpoint tells of what system it is.

    Args:
        config: the config as YAML text.
    """

    def __init__(self, config: str) -> None:
        self.config = config

    @override
    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the entry CONFIG_KEY."""
        checkpoint[CONFIG_KEY] = self.config


class StopOnInterrupt(Callback):
    """Ends a run between two steps.

    The first Ctrl-C lets the running step end, after which Lightning stops and the last state is saved; the second one
    stops at once. A run stopped between two steps resumes to the same numbers. Before the first step, while the chains
    equilibrate, there is nothing to save: the run stops at once.

    SIGTERM, SIGUSR1 and SIGUSR2, by which clusters announce the end of a job's time, do the same. All processes stop
    after the same step, whichever of them the signal reaches.

    Args:
        say: called with a line when the first signal arrives.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

    def __init__(self, say: Callable[[str], None] = lambda _line: None) -> None:
        self.say = say
        self.received = 0
        self._speaks = False
        self._has_begun = False
        self._previous: dict[int, Any] = {}

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take over the signals; only the main thread of a process can."""
        self.received, self._speaks, self._has_begun = 0, trainer.is_global_zero, False
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._on_signal) for number in self.SIGNALS}

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
                trainer.limit_val_batches = 0  # or Lightning would validate in the midst of an epoch

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give the signals back."""
        self._restore()

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Give the signals back."""
        self._restore()

    def _on_signal(self, signum: int, _frame: FrameType | None) -> None:
        self.received = signum
        if not self._has_begun:
            raise KeyboardInterrupt
        if signum == signal.SIGINT and signum in self._previous:
            signal.signal(signum, self._previous.pop(signum))
        if self._speaks:
            again = " (Ctrl-C again stops at once)" if signum == signal.SIGINT else ""
            self.say(f"\n{signal.Signals(signum).name}: ending this step, then saving{again}")

    def _restore(self) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        self._previous = {}
