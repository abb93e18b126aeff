"""The members of a committee: potentials fitted as every other, without a run folder."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from torch.optim.lr_scheduler import LambdaLR
from typing_extensions import override

from lightning_vfe.errors import SettingError
from lightning_vfe.labels.label import LabellingFailed
from lightning_vfe.models.potential.potential import Potential
from lightning_vfe.signals import Stopped
from lightning_vfe.training.potential.datamodule import LabelDataModule
from lightning_vfe.training.potential.module import PotentialModule
from lightning_vfe.training.run.launch import configure_logging, launch
from lightning_vfe.training.torch_optimizer import adamw, half_cosine


class CommitteeTrainer:
    """Trains potentials that differ in their seed: call it with (path of the database, seed).

    A member is the moving average of the parameters where the validation loss was lowest, as in every fit of a
    potential. The rate falls to a hundredth of the first one along half a cosine.

    Args:
        make_potential: builds an untrained potential.
        steps: optimizer steps of each.
        batch_size: configurations of a batch.
        learning_rate: the first rate.
        gradient_clip_val: largest norm of a gradient.

    Raises:
        ValueError: steps is not positive.
    """

    def __init__(
        self,
        make_potential: Callable[[], Potential],
        steps: int = 600,
        batch_size: int = 8,
        learning_rate: float = 3e-3,
        gradient_clip_val: float = 10.0,
    ) -> None:
        if steps < 1:
            raise SettingError("steps", steps, "must be at least 1")
        self.make_potential = make_potential
        self.steps, self.batch_size, self.gradient_clip_val = steps, batch_size, gradient_clip_val
        cosine = functools.partial(half_cosine, num_steps=steps, final_fraction=0.01)
        self.optimizer = adamw(learning_rate, functools.partial(LambdaLR, lr_lambda=cosine))

    def __call__(
        self, database: str, seed: int, progress: Callable[[int, int], None] = lambda _done, _total: None
    ) -> Potential:
        """A potential whose parameters, split and order come from the seed; the generators of others stay untouched.

        Args:
            database: file of the labels.
            seed: of the parameters, the split and the order.
            progress: hears how many steps of how many are through.

        Raises:
            Stopped: a signal ended the fit.
            LabellingFailed: no validation found a finite loss.
            ValueError: the database or the potential cannot be used.
        """
        configure_logging()
        data = LabelDataModule(database, self.batch_size, seed=seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = PotentialModule(self.make_potential(), optimizer=self.optimizer)
            data.read()
            module.check(data)
            trainer = self._trainer(len(data.train_dataloader()), _Heard(progress))
            if stopped_by := launch(trainer, "fit", module, data, None):
                raise Stopped(stopped_by)
        if not bool(torch.isfinite(module.best_loss)):
            raise LabellingFailed("the fit of a committee's potential diverged; lower label.trainer.learning_rate")
        return module.best

    def _trainer(self, steps_per_epoch: int, heard: L.Callback) -> L.Trainer:
        """One process on the CPU that writes and prints nothing, whatever cluster it runs on."""
        return L.Trainer(
            accelerator="cpu",
            devices=1,
            max_steps=self.steps,
            max_epochs=-1,
            gradient_clip_val=self.gradient_clip_val,
            plugins=[LightningEnvironment()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[heard],
            val_check_interval=min(self.steps, steps_per_epoch),  # a fit within one epoch has its validation, too
            num_sanity_val_steps=0,
            inference_mode=False,
            use_distributed_sampler=False,
        )


class _Heard(L.Callback):
    """Says how many steps are through."""

    def __init__(self, progress: Callable[[int, int], None]) -> None:
        self.progress = progress

    @override
    def on_train_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        """One step on."""
        self.progress(trainer.global_step, trainer.max_steps)
