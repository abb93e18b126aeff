"""PyTorch's optimizers and schedulers, as every training takes them."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lightning_vfe.errors import SettingError

NEVER = 10**9
"""Epochs between two steps of a scheduler that Lightning is to keep in its checkpoints, but not to step."""

Scheduler = Callable[[torch.optim.Optimizer], Any]


class TorchOptimizer:
    """Any optimizer of PyTorch, with any of its schedulers, for all parameters that are trained.

    Args:
        optimizer: called with the parameters, such as functools.partial(torch.optim.AdamW, lr=3e-3); in a config
            `_target_: torch.optim.AdamW` with `_partial_: true`.
        scheduler: called with the optimizer; None keeps the rates. ReduceLROnPlateau steps after each validation of
            `fit`, by the validation loss.
        interval: every other scheduler steps once a step or once an epoch.

    Raises:
        ValueError: another interval, or settings that PyTorch refuses.
    """

    uses_scores = False

    def __init__(
        self,
        optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
        scheduler: Scheduler | None = None,
        interval: str = "step",
    ) -> None:
        if interval not in ("step", "epoch"):
            raise SettingError("interval", interval, "is unknown", "choose step or epoch")
        self.optimizer, self.scheduler, self.interval = optimizer, scheduler, interval
        self._build([nn.Parameter(torch.zeros(1, 1))])  # raises for bad settings

    def configure(self, *networks: nn.Module | None, validation_loss: str | None = None) -> dict[str, Any]:
        """What a LightningModule returns from configure_optimizers.

        Args:
            networks: those whose parameters are trained, if they require gradients; None stands for a missing network.
            validation_loss: name of the loss that `fit` logs at each validation; None without validation.

        Raises:
            ValueError: the scheduler needs a validation loss and there is none.
        """
        parameters = [p for network in networks if network is not None for p in network.parameters() if p.requires_grad]
        optimizer, scheduler = self._build(parameters)
        if scheduler is None:
            return {"optimizer": optimizer}
        if not isinstance(scheduler, ReduceLROnPlateau):
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": self.interval}}
        if validation_loss is None:
            raise SettingError(
                "optimizer.scheduler",
                "ReduceLROnPlateau",
                "needs a validation loss, and this training has none",
                "choose another scheduler",
            )
        kept = {"scheduler": scheduler, "interval": "epoch", "frequency": NEVER, "monitor": validation_loss}
        return {"optimizer": optimizer, "lr_scheduler": kept}

    def _build(self, parameters: list[nn.Parameter]) -> tuple[torch.optim.Optimizer, Any]:
        """Optimizer and scheduler; settings that they refuse become one line."""
        key, made = "optimizer", self.optimizer
        try:
            optimizer = self.optimizer(parameters)
            if self.scheduler is None:
                return optimizer, None
            key, made = "scheduler", self.scheduler  # type: ignore[assignment]
            return optimizer, self.scheduler(optimizer)
        except SettingError:
            raise
        except (TypeError, ValueError) as error:
            name = getattr(getattr(made, "func", made), "__name__", type(made).__name__)
            raise SettingError(key, name, f"refuses its settings: {error}") from None


def check_takes_validation_loss(settings: Any) -> None:
    """Refuse settings of an optimizer that cannot train one network on data.

    Raises:
        ValueError: they are those of the natural gradient, or others that belong to flow and wavefunction.
    """
    if "validation_loss" not in inspect.signature(settings.configure).parameters:
        remedy = "choose optimizer=adamw_cosine, adamw_plateau, adamw_exponential or torch"
        raise SettingError("optimizer", type(settings).__name__, "trains flow and wavefunction together", remedy)


def step_plateau(module: L.LightningModule, loss: float) -> None:
    """Tell a ReduceLROnPlateau of the module, if it has one, the loss of a validation of `fit`.

    Lightning itself would leave it out at the end of an epoch that a resumed run has not begun.
    """
    scheduler = module.lr_schedulers()
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step(loss)


def adamw(learning_rate: float, scheduler: Scheduler | None = None) -> TorchOptimizer:
    """AdamW without weight decay, which is Adam.

    Args:
        learning_rate: the first rate.
        scheduler: called with the optimizer; None keeps the rate.

    Source: Loshchilov and Hutter, arXiv:1711.05101.
    """
    return TorchOptimizer(functools.partial(torch.optim.AdamW, lr=learning_rate, weight_decay=0.0), scheduler)


def half_cosine(step: int, num_steps: int, final_fraction: float) -> float:
    """Factor f + (1 - f) (1 + cos(pi t / T)) / 2 of a rate at step t <= T, for torch.optim.lr_scheduler.LambdaLR.

    CosineAnnealingLR keeps its T in the checkpoint: resumed with more steps, its rate would rise again.

    Args:
        step: t.
        num_steps: T, the steps of the run.
        final_fraction: f, in [0, 1].

    Raises:
        ValueError: the run has no end, or final_fraction is out of its range.
    """
    if num_steps < 1:
        raise SettingError(
            "trainer.max_steps",
            num_steps,
            "sets no end, where the cosine of the rate should end",
            "set trainer.max_steps=1000 for example, or optimizer=adamw_plateau",
        )
    if not 0 <= final_fraction <= 1:
        raise SettingError("final_fraction", final_fraction, "must be from 0 to 1")
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(step, num_steps) / num_steps))
    return final_fraction + (1.0 - final_fraction) * cosine
