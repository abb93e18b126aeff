"""Fit a potential to labelled configurations: the LightningModule."""

from __future__ import annotations

import copy
import functools
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from typing_extensions import override

from lightning_vfe.errors import SettingError
from lightning_vfe.models.potential.potential import Potential
from lightning_vfe.models.potential.storage import load_potential
from lightning_vfe.resources import data_file
from lightning_vfe.training.potential.datamodule import LabelDataModule
from lightning_vfe.training.potential.loss import PotentialLoss, Prediction, initialise_scales, predict
from lightning_vfe.training.potential.metrics import PotentialErrors
from lightning_vfe.training.supervised.labelled import LabelledSet
from lightning_vfe.training.torch_optimizer import (
    TorchOptimizer,
    adamw,
    check_takes_validation_loss,
    step_plateau,
)


class PotentialModule(L.LightningModule):
    """Trains a Potential on energies, and on forces and pressures where there are labels of them.

    Three copies of the parameters: those that the optimizer moves, their exponential moving average, and that average
    where the validation loss was lowest so far. The last one is what `validate` and `test` measure and what is written
    as the potential. All three are part of a checkpoint.

    Args:
        potential: to fit; of a DeltaPotential the correction only.
        loss: weights of energies, forces and pressures.
        optimizer: settings of the optimizer; None takes AdamW at a rate of 2e-3.
        ema_decay: of the moving average, per step; it starts faster, as (1 + t) / (10 + t).

    Raises:
        ValueError: ema_decay is not in [0, 1), or the potential has no parameters to train.
    """

    trained_steps: Tensor
    best_loss: Tensor

    def __init__(
        self,
        potential: Potential,
        loss: PotentialLoss | None = None,
        optimizer: TorchOptimizer | None = None,
        ema_decay: float = 0.99,
    ) -> None:
        super().__init__()
        if not 0 <= ema_decay < 1:
            raise SettingError("ema_decay", ema_decay, "must be from 0 to below 1, such as 0.99")
        if not any(parameter.requires_grad for parameter in potential.parameters()):
            raise SettingError(
                "potential", type(potential).__name__, "has no parameters to fit", "take schnet or delta"
            )
        self.potential = potential
        moving = functools.partial(_moving_average, ema_decay)
        self.average = AveragedModel(potential, multi_avg_fn=moving).requires_grad_(False).eval()
        self.best = copy.deepcopy(potential).requires_grad_(False).eval()
        self.loss = loss or PotentialLoss()
        self.optimizer_settings = optimizer or adamw(2e-3)
        check_takes_validation_loss(self.optimizer_settings)
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
        initialise_scales(self.potential, [part.to(self.device) for part in datamodule.train_sets], self.loss)
        self.average.update_parameters(self.potential)
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
        self.average.update_parameters(self.potential)

    def configure_optimizers(self) -> Any:
        """The optimizer of the parameters that are trained."""
        return self.optimizer_settings.configure(self.potential, validation_loss="validation_loss")

    # --- measuring --------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Start measuring."""
        self.errors.reset()
        self.predictions = []

    on_test_epoch_start = on_validation_epoch_start

    @override
    def validation_step(self, batch: LabelledSet, batch_idx: int) -> None:
        """Errors of the moving average during `fit`, of the best one in `validate`."""
        measured: Any = self.average.module if self.trainer.state.fn == "fit" else self.best
        predicted = predict(measured, batch)
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
            self.best.load_state_dict(self.average.module.state_dict())
        step_plateau(self, float(loss))

    test_step = validation_step


def stored_potential(path: str) -> Potential:
    """The potential in a file; `data/...` also finds those that the package ships.

    Raises:
        ValueError: the file is missing or damaged.
    """
    return load_potential(data_file(path))[0]


def _moving_average(decay: float, averages: Any, parameters: Any, count: Tensor) -> None:
    """Move averages towards parameters, in place, at step t = count; quickly while the steps are few."""
    steps = int(count)
    get_ema_multi_avg_fn(min(decay, (1.0 + steps) / (10.0 + steps)))(averages, parameters, count)
