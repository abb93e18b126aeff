"""A state of the training that one can return to, and shorter updates from there on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from lightning_vfe.optim.natural_gradient import NaturalGradientOptimizer

RATES = ("lr", "initial_lr")
"""Entries of a group of an optimizer from which a schedule continues."""


@dataclass(frozen=True)
class Snapshot:
    """Networks, optimizers and the walkers of this process after `step` steps, on the CPU."""

    step: int
    module: dict[str, Any]
    optimizers: list[dict[str, Any]]
    walkers: dict[str, Any] | None

    @staticmethod
    def take(trainer: L.Trainer, module: L.LightningModule) -> Snapshot:
        """The present state."""
        walkers = walkers_of(module)
        content = module.state_dict(), [each.state_dict() for each in trainer.optimizers]
        chains = None if walkers is None else walkers.state_dict()
        return Snapshot(trainer.global_step, *(_copy(part) for part in (*content, chains)))

    def restore(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Set everything back but the rates of the optimizers, whose schedule continues, and the random numbers."""
        module.load_state_dict(self.module)
        for optimizer, state in zip(trainer.optimizers, self.optimizers, strict=True):
            rates: list[dict[str, Any]]
            rates = [{key: group[key] for key in RATES if key in group} for group in _groups(optimizer)]
            optimizer.load_state_dict(_copy(state))
            for group, rate in zip(_groups(optimizer), rates, strict=True):
                group |= rate
        walkers = walkers_of(module)
        if walkers is not None:
            walkers.load_state_dict({**(self.walkers or {}), "random": walkers.random.state_dict()})


def _copy(content: Any) -> Any:
    return apply_to_collection(content, Tensor, lambda tensor: tensor.detach().cpu().clone())


def _groups(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    return optimizer.param_groups


def walkers_of(module: L.LightningModule) -> Any:
    """The walkers of this process; None where the module has none."""
    return getattr(getattr(module, "state", None), "walkers", None)


def shorten(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Make all updates shorter: by the trust region of the natural gradient, a squared length, or else by the rates."""
    is_natural = isinstance(optimizer, NaturalGradientOptimizer)
    for group in _groups(optimizer):
        if is_natural:
            group["max_norm"] *= factor**2
        else:
            group |= {key: group[key] * factor for key in RATES if key in group}
