"""AdamW for potentials, with three ways to lower the rate."""

from __future__ import annotations

import abc
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from typing_extensions import override

from lightning_vfe.errors import SettingError

NEVER = 10**9
"""Epochs between two steps of a scheduler that Lightning is to keep in its checkpoints, but not to step."""


class AdamW(abc.ABC):
    """AdamW with a rate that falls.

    Args:
        learning_rate: the first rate.
        weight_decay: of AdamW (Loshchilov and Hutter, arXiv:1711.05101); 0 makes it Adam.

    Raises:
        ValueError: the rate is not positive and finite, or the decay negative or infinite.
    """

    def __init__(self, learning_rate: float = 2e-3, weight_decay: float = 0.0) -> None:
        if not 0 < learning_rate < math.inf:
            raise SettingError("learning_rate", learning_rate, "must be positive and finite, such as 2e-3")
        if not 0 <= weight_decay < math.inf:
            raise SettingError("weight_decay", weight_decay, "must be finite, not negative", "0 turns it off")
        self.learning_rate, self.weight_decay = learning_rate, weight_decay

    def configure(self, parameters: Iterable[nn.Parameter], num_steps: float) -> dict[str, Any]:
        """What a LightningModule returns from configure_optimizers.

        Args:
            parameters: those to train.
            num_steps: of the whole run, infinite where nothing but the user ends it.

        Raises:
            ValueError: the rate falls until an end that the run does not have.
        """
        self.check_end(num_steps)
        optimizer = torch.optim.AdamW(list(parameters), self.learning_rate, weight_decay=self.weight_decay)
        return {"optimizer": optimizer, "lr_scheduler": self._scheduler(optimizer, num_steps)}

    def check_end(self, num_steps: float) -> None:  # noqa: B027  most rates fall without an end
        """Refuse a number of steps that this schedule cannot use."""

    @abc.abstractmethod
    def _scheduler(self, optimizer: torch.optim.Optimizer, num_steps: float) -> dict[str, Any]:
        """Lightning's description of the scheduler."""


class PlateauAdamW(AdamW):
    """Lowers the rate when the validation loss has not improved for `patience` validations.

    Args:
        factor: of the rate, between 0 and 1.
        patience: validations.
        least_learning_rate: where the rate stops to fall.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        learning_rate: float = 2e-3,
        weight_decay: float = 0.0,
        factor: float = 0.5,
        patience: int = 10,
        least_learning_rate: float = 1e-6,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        if not 0 < factor < 1:
            raise SettingError("factor", factor, "must be between 0 and 1, such as 0.5")
        if patience < 0:
            raise SettingError("patience", patience, "must not be negative")
        self.factor, self.patience, self.least_learning_rate = factor, patience, least_learning_rate

    @override
    def _scheduler(self, optimizer: torch.optim.Optimizer, num_steps: float) -> dict[str, Any]:
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=self.factor, patience=self.patience, min_lr=self.least_learning_rate
        )
        # PotentialModule steps it: Lightning leaves it out at the end of an epoch that a resumed run has not begun
        return {"scheduler": plateau, "interval": "epoch", "frequency": NEVER, "monitor": "validation_loss"}


class ExponentialAdamW(AdamW):
    """Halves the rate every `half_life` steps.

    Args:
        half_life: steps.

    Raises:
        ValueError: half_life is not positive.
    """

    def __init__(self, learning_rate: float = 2e-3, weight_decay: float = 0.0, half_life: float = 1000.0) -> None:
        super().__init__(learning_rate, weight_decay)
        if not half_life > 0:
            raise SettingError("half_life", half_life, "must be positive, in steps")
        self.half_life = half_life

    @override
    def _scheduler(self, optimizer: torch.optim.Optimizer, num_steps: float) -> dict[str, Any]:
        decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 ** (step / self.half_life))
        return {"scheduler": decay, "interval": "step"}


class CosineAdamW(AdamW):
    """Lets the rate fall to `final_fraction` of the first one at the end of the run, along half a cosine.

    Args:
        final_fraction: of the rate.

    Raises:
        ValueError: final_fraction is not in [0, 1].
    """

    def __init__(self, learning_rate: float = 2e-3, weight_decay: float = 0.0, final_fraction: float = 0.01) -> None:
        super().__init__(learning_rate, weight_decay)
        if not 0 <= final_fraction <= 1:
            raise SettingError("final_fraction", final_fraction, "must be from 0 to 1")
        self.final_fraction = final_fraction

    def check_end(self, num_steps: float) -> None:
        """Refuse a run without an end."""
        if math.isinf(num_steps):
            raise SettingError(
                "trainer.max_steps",
                "-1",
                "sets no end, where the cosine of the rate should end",
                "set trainer.max_steps=1000 for example, or optimizer=adamw_plateau",
            )

    def _scheduler(self, optimizer: torch.optim.Optimizer, num_steps: float) -> dict[str, Any]:
        def factor(step: int) -> float:
            cosine = 0.5 * (1.0 + math.cos(math.pi * min(step, num_steps) / num_steps))
            return self.final_fraction + (1.0 - self.final_fraction) * cosine

        return {"scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, factor), "interval": "step"}
