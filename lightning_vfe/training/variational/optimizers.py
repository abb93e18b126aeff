"""Optimizers of the two blocks, flow and wavefunction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from lightning_vfe.errors import SettingError
from lightning_vfe.optim import natural_gradient

Blocks = dict[str, list[nn.Parameter]]


class OptimizerSettings(Protocol):
    """Settings of an optimizer of flow and wavefunction; `configure` builds it for given networks.

    Optional, if it uses scores: `score_chunk`, the number of samples whose scores are computed at once, or None.
    """

    uses_scores: bool
    """Whether the optimizer takes scores instead of the derivative of a loss.

    It then comes with a scheduler. The closure of its `step` returns the scores as a dictionary of `ScoreBlock`, and
    its `report` holds the numbers to log.
    """

    def configure(self, wavefunction: nn.Module, flow: nn.Module | None, /) -> dict[str, Any]:
        """What a LightningModule returns from configure_optimizers; `flow` is None for fixed protons."""
        ...


def _trainable(wavefunction: nn.Module, flow: nn.Module | None) -> Blocks:
    """The parameters of both blocks; a block without any is left out."""
    modules = {"wavefunction": wavefunction} | ({} if flow is None else {"flow": flow})
    found = {name: [p for p in module.parameters() if p.requires_grad] for name, module in modules.items()}
    return {name: parameters for name, parameters in found.items() if parameters}


@dataclass(frozen=True)
class Decay:
    """Factor of the first rate: 1 / (1 + step / decay_steps), which the last steps take linearly to zero (cooldown).

    A training with few samples moves at random around the minimum, the more the larger its steps. The small steps of
    the cooldown remove this noise (Haegele et al., arXiv:2405.18392).

    Raises:
        ValueError: a setting is out of its range, or a cooldown does not know the number of steps.
    """

    decay_steps: float
    """Number of steps after which the factor is half."""
    cooldown: float = 0.0
    """Share of the training at its end in which the factor falls to zero."""
    num_steps: int = -1
    """Steps of the whole training, which a cooldown needs."""

    def __post_init__(self) -> None:
        if not self.decay_steps > 0:
            raise SettingError("decay_steps", self.decay_steps, "must be positive, such as 100")
        if not 0 <= self.cooldown <= 1:
            raise SettingError("cooldown", self.cooldown, "must be from 0 to 1", "0 is no cooldown")
        if self.cooldown > 0 and self.num_steps < 0:
            reason = "needs to know the last step of the training"
            raise SettingError("cooldown", self.cooldown, reason, "set trainer.max_steps, or 0")

    def factor(self, step: int) -> float:
        """The factor at a step; from num_steps on it is that of the last step before."""
        factor = 1.0 / (1.0 + step / self.decay_steps)
        if self.cooldown > 0:
            remaining = max(1, self.num_steps - step)
            factor *= min(1.0, remaining / (self.cooldown * self.num_steps + 1.0))
        return factor

    def of(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The optimizer with this schedule, as configure_optimizers returns it."""
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class NaturalGradient:
    """Natural gradient of both blocks, see optim/natural_gradient.py.

    Args:
        flow_learning_rate: largest step of the flow, in units of 1/Ha: 1/kT is a Newton step for the free energy.
        wavefunction_learning_rate: largest step of the wavefunction, in 1/Ha (a time of imaginary-time evolution).
        flow_damping: added to the Fisher matrix of ln p.
        wavefunction_damping: added to the Fisher matrix of ln psi.
        flow_max_norm: largest squared length of a step of the flow in the metric of its Fisher matrix.
        wavefunction_max_norm: the same for the wavefunction; None is 1e-3. On the command line, a run that starts
            from trained parameters takes less in its place.
        momentum: share mu of the previous direction that is kept (SPRING).
        decay_steps: number of optimizer steps after which the step length is half.
        cooldown: share of the training at its end in which the step length falls linearly to zero.
        num_steps: optimizer steps of the whole training, which a cooldown needs.
        space: linear system of the samples ("sample") or of the parameters ("parameter"); "auto" takes the smaller one.
        fisher_decay: share of the previous Fisher matrix that is kept; for space="parameter" only.
        score_chunk: samples whose scores are computed at once; None adapts it to the free memory.

    Raises:
        ValueError: a setting is out of its range.
    """

    uses_scores = True

    def __init__(
        self,
        flow_learning_rate: float = 20.0,
        wavefunction_learning_rate: float = 1.0,
        flow_damping: float = 1e-2,
        wavefunction_damping: float = 1e-3,
        flow_max_norm: float = 1e-3,
        wavefunction_max_norm: float | None = None,
        momentum: float = 0.95,
        decay_steps: float = 100.0,
        cooldown: float = 0.0,
        num_steps: int = -1,
        space: str = "auto",
        fisher_decay: float = 0.0,
        score_chunk: int | None = None,
    ) -> None:
        wavefunction_max_norm = 1e-3 if wavefunction_max_norm is None else wavefunction_max_norm
        usual = {  # value and advice
            "flow_learning_rate": (flow_learning_rate, 20.0),
            "wavefunction_learning_rate": (wavefunction_learning_rate, 1.0),
            "flow_damping": (flow_damping, 1e-2),
            "wavefunction_damping": (wavefunction_damping, 1e-3),
            "flow_max_norm": (flow_max_norm, 1e-3),
            "wavefunction_max_norm": (wavefunction_max_norm, 1e-3),
        }
        for name, (value, advice) in usual.items():
            if not 0 < value < math.inf:
                raise SettingError(name, value, f"must be positive and finite, such as {advice}")
        if score_chunk is not None and (score_chunk != int(score_chunk) or score_chunk < 1):
            remedy = "null takes what suits the free memory"
            raise SettingError("score_chunk", score_chunk, "must be a whole number, at least 1", remedy)
        self.learning_rates = {"flow": flow_learning_rate, "wavefunction": wavefunction_learning_rate}
        self.dampings = {"flow": flow_damping, "wavefunction": wavefunction_damping}
        self.max_norms = {"flow": flow_max_norm, "wavefunction": wavefunction_max_norm}
        self.momentum = momentum
        self.decay = Decay(decay_steps, cooldown, num_steps)
        self.space = space
        self.fisher_decay = fisher_decay
        self.score_chunk = None if score_chunk is None else int(score_chunk)
        self._build({"flow": [nn.Parameter()], "wavefunction": [nn.Parameter()]})  # raises for bad settings

    def _build(self, blocks: Blocks) -> natural_gradient.NaturalGradientOptimizer:
        return natural_gradient.NaturalGradientOptimizer(
            blocks, self.learning_rates, self.dampings, self.max_norms, self.momentum, self.fisher_decay, self.space
        )

    def configure(self, wavefunction: nn.Module, flow: nn.Module | None) -> dict[str, Any]:
        """What a LightningModule returns from configure_optimizers; `flow` is None for fixed protons."""
        return self.decay.of(self._build(_trainable(wavefunction, flow)))


class Adam:
    """Adam for both blocks, each with its own learning rate, decaying as 1 / (1 + step / decay_steps).

    Args:
        flow_learning_rate: first rate of the flow.
        wavefunction_learning_rate: first rate of the wavefunction.
        decay_steps: number of optimizer steps after which the rates are half.
        cooldown: share of the training at its end in which the rates fall linearly to zero.
        num_steps: optimizer steps of the whole training, which a cooldown needs.

    Raises:
        ValueError: a rate is not positive and finite, or a setting of the schedule is out of its range.
    """

    uses_scores = False

    def __init__(
        self,
        flow_learning_rate: float = 3e-3,
        wavefunction_learning_rate: float = 3e-3,
        decay_steps: float = 1000.0,
        cooldown: float = 0.0,
        num_steps: int = -1,
    ) -> None:
        settings = {"flow_learning_rate": flow_learning_rate, "wavefunction_learning_rate": wavefunction_learning_rate}
        for name, value in settings.items():
            if not 0 < value < math.inf:
                raise SettingError(name, value, "must be positive and finite, such as 3e-3")
        self.flow_learning_rate = flow_learning_rate
        self.wavefunction_learning_rate = wavefunction_learning_rate
        self.decay = Decay(decay_steps, cooldown, num_steps)

    def configure(self, wavefunction: nn.Module, flow: nn.Module | None) -> dict[str, Any]:
        """What a LightningModule returns from configure_optimizers; `flow` is None for fixed protons."""
        rates = {"wavefunction": self.wavefunction_learning_rate, "flow": self.flow_learning_rate}
        blocks = _trainable(wavefunction, flow)
        groups = [{"params": parameters, "lr": rates[name]} for name, parameters in blocks.items()]
        return self.decay.of(torch.optim.Adam(groups))
