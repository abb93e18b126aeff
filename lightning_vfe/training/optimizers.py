"""Optimizers of the two blocks, flow and wavefunction."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Adam:
    """Adam for both blocks, each with its own learning rate, decaying as 1 / (1 + step / decay_steps).

    Args:
        flow_learning_rate: for the proton flow.
        wavefunction_learning_rate: for the electron wavefunction.
        decay_steps: steps after which the rates are halved.

    Raises:
        ValueError: a rate or decay_steps is not positive.
    """

    def __init__(
        self, flow_learning_rate: float = 3e-3, wavefunction_learning_rate: float = 3e-3, decay_steps: float = 1000.0
    ) -> None:
        settings = {"flow_learning_rate": flow_learning_rate, "wavefunction_learning_rate": wavefunction_learning_rate}
        for name, value in (settings | {"decay_steps": decay_steps}).items():
            if not value > 0:
                raise ValueError(f"optimizer.{name} = {value} must be positive")
        self.flow_learning_rate = flow_learning_rate
        self.wavefunction_learning_rate = wavefunction_learning_rate
        self.decay_steps = decay_steps

    def configure(self, wavefunction: nn.Module, flow: nn.Module | None) -> dict[str, Any]:
        """What a LightningModule returns from configure_optimizers; `flow` is None for fixed protons."""
        groups = [{"params": list(wavefunction.parameters()), "lr": self.wavefunction_learning_rate}]
        if flow is not None and any(True for _ in flow.parameters()):
            groups.append({"params": list(flow.parameters()), "lr": self.flow_learning_rate})
        optimizer = torch.optim.Adam(groups)
        decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 / (1.0 + step / self.decay_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": decay, "interval": "step"}}
