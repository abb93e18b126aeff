"""Fit a potential to labelled configurations: the LightningModule."""

from __future__ import annotations

import copy
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_vfe.errors import SettingError
from lightning_vfe.models.potential.potential import Potential
from lightning_vfe.models.potential.storage import load_potential
from lightning_vfe.resources import data_file
from lightning_vfe.training.potential.datamodule import LabelDataModule
from lightning_vfe.training.potential.loss import PotentialLoss, Prediction, predict, set_start
from lightning_vfe.training.potential.metrics import PotentialErrors
from lightning_vfe.training.supervised.labelled import LabelledSet
from lightning_vfe.training.supervised.optimizers import AdamW, CosineAdamW


class PotentialModule(L.LightningModule):
    """Trains a Potential on energies, and on forces and pressures where there are labels of them.

    Three copies of the parameters: those that the optimizer moves, their exponential moving average, and that average
    where the validation loss was lowest so far. The last one is what `validate` and `test` measure and what is written
    as the potential. All three are part of a checkpoint.

    Args:
        potential: to fit; of a DeltaPotential the correction only.
        loss: weights of energies, forces and pressures.
        optimizer: settings of the optimizer.
        ema_decay: of the moving average, per step; it starts faster, as (1 + t) / (10 + t).

    Raises:
        ValueError: ema_decay is not in [0, 1).
    """

    trained_steps: Tensor
    best_loss: Tensor

    def __init__(
        self,
        potential: Potential,
        loss: PotentialLoss | None = None,
        optimizer: AdamW | None = None,
        ema_decay: float = 0.99,
    ) -> None:
        super().__init__()
        if not 0 <= ema_decay < 1:
            raise SettingError("ema_decay", ema_decay, "must be from 0 to below 1, such as 0.99")
        self.potential = potential
        self.average = frozen_copy(potential)
        self.best = frozen_copy(potential)
        self.loss = loss or PotentialLoss()
        self.optimizer_settings = optimizer or CosineAdamW()
        self.ema_decay = ema_decay
        self.errors = PotentialErrors()
        self.register_buffer("trained_steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("best_loss", torch.full((), torch.inf))
        self.predictions: list[tuple[LabelledSet, Prediction]] = []

    def description(self) -> dict[str, str]:
        """What the banner says."""
        trained = sum(p.numel() for p in self.potential.parameters() if p.requires_grad)
        return {"potential": f"{type(self.potential).__name__}, {trained} parameters"}

    def check(self, datamodule: LabelDataModule) -> None:
        """Look at the cells of the labels.

        Raises:
            ValueError: the potential's range is too long for one of them, or its density outside the potential's.
        """
        for part in datamodule.train_sets:
            self.potential.check(part.positions[:1], part.cell)

    # --- training ---------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """A new fit takes its shift and scales from the training set."""
        if int(self.trained_steps) > 0:
            return
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(datamodule, LabelDataModule):
            raise TypeError(f"PotentialModule reads a LabelDataModule, not a {type(datamodule).__name__}")
        set_start(self.potential, [part.to(self.device) for part in datamodule.train_sets], self.loss)
        self.average.load_state_dict(self.potential.state_dict())
        self.best.load_state_dict(self.potential.state_dict())

    @override
    def training_step(self, batch: LabelledSet, batch_idx: int) -> Tensor:
        """The loss of a batch."""
        loss: Tensor = self.loss(predict(self.potential, batch, create_graph=True), batch)
        self.log("train_loss", loss, batch_size=len(batch), sync_dist=True)
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """A step, which the average follows: here, since callbacks save before the module's own on_train_batch_end."""
        super().optimizer_step(*args, **kwargs)
        self.trained_steps += 1
        follow(self.average, self.potential, ema_rate(int(self.trained_steps), self.ema_decay))

    def configure_optimizers(self) -> Any:
        """The optimizer of the parameters that are trained."""
        num_steps = self.trainer.estimated_stepping_batches
        return self.optimizer_settings.configure(
            (parameter for parameter in self.potential.parameters() if parameter.requires_grad), num_steps
        )

    # --- measuring --------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Start measuring."""
        self.errors.reset()
        self.predictions = []

    on_test_epoch_start = on_validation_epoch_start

    @override
    def validation_step(self, batch: LabelledSet, batch_idx: int) -> None:
        """Errors of the moving average during `fit`, of the best one in `validate`."""
        predicted = predict(self.average if self.trainer.state.fn == "fit" else self.best, batch)
        self.errors.update(predicted, batch)
        if self.trainer.state.fn == "fit":
            self.log("validation_loss", self.loss(predicted, batch), batch_size=len(batch), prog_bar=True)
        else:
            self.predictions.append((batch, predicted))

    def on_validation_epoch_end(self) -> None:
        """During `fit`: log the errors, keep the average if it is the best so far, and tell the plateau scheduler."""
        if self.trainer.state.fn != "fit":
            return
        self.log_dict({f"validation_{name}": value for name, value in self.errors.compute().items()})
        loss = self.trainer.callback_metrics["validation_loss"].to(self.best_loss)
        if bool(loss < self.best_loss):
            self.best_loss.copy_(loss)
            self.best.load_state_dict(self.average.state_dict())
        scheduler = self.lr_schedulers()
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            scheduler.step(float(loss))

    test_step = validation_step


def stored_potential(path: str) -> Potential:
    """The potential in a file; `data/...` also finds those that the package ships.

    Raises:
        ValueError: the file is missing or damaged.
    """
    return load_potential(data_file(path))[0]


def frozen_copy(potential: Potential) -> Potential:
    """A copy that is not trained."""
    return copy.deepcopy(potential).requires_grad_(False).eval()


def ema_rate(step: int, decay: float) -> float:
    """Share of the new parameters in the moving average at a step, counted from one."""
    return 1.0 - min(decay, (1.0 + step) / (10.0 + step))


@torch.no_grad()
def follow(average: nn.Module, trained: nn.Module, rate: float) -> None:
    """Move the average's parameters towards the trained ones."""
    for mean, new in zip(average.parameters(), trained.parameters(), strict=True):
        if new.requires_grad:
            mean.lerp_(new, rate)
