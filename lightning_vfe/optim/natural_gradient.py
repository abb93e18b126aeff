"""Stochastic reconfiguration of wavefunction and flow as an optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_vfe.errors import SettingError
from lightning_vfe.optim.collectives import Collectives
from lightning_vfe.optim.solve import (
    Direction,
    ScoreBlock,
    SolveSettings,
    fisher_and_force,
    minsr_direction,
    sr_direction,
)

SPACES = ("auto", "sample", "parameter")
SETTINGS = ("largest_step", "damping", "max_norm", "momentum", "fisher_decay", "space")
"""What a resumed run takes from its own config and not from the checkpoint."""


class NaturalGradientOptimizer(torch.optim.Optimizer):
    r"""theta <- theta - step phi, phi = mu phi' + (S + lambda)^-1 (f - mu S phi'), for every block on its own.

    S is the Fisher matrix of the block (of ln p for the flow, of ln psi for the wavefunction), f its force (see
    ScoreBlock), phi' the last direction; mu = 0 is plain stochastic reconfiguration. The step is

        step = s_t min(lr, sqrt(max_norm / (phi^T (S + lambda) phi))),        s_t = lr_t / lr_0,

    so that the distribution never moves further than max_norm in the metric of S (Xie et al., PRL 131, 126501 (2023);
    for momentum 0 the product is f . phi). A scheduler lowers lr_t, and with it the largest step. A direction that is
    not finite, or a matrix that is not positive definite, is counted in the group's `num_skipped`; neither parameters
    nor phi' change then.

    Args:
        blocks: the parameters of every block, by its name.
        lr: learning rate of every block.
        damping: lambda of every block.
        max_norm: largest squared length of a step, of every block.
        momentum: mu; 0.9 to 0.99 average the direction over 1 / (1 - mu) steps.
        fisher_decay: share of the last S that is kept, in parameter space only.
        space: "sample" solves with a matrix of the samples, "parameter" with one of the parameters, "auto" takes the
            smaller.

    Raises:
        ValueError: a setting is out of its range.
    """

    def __init__(
        self,
        blocks: Mapping[str, Iterable[nn.Parameter]],
        lr: Mapping[str, float],
        damping: Mapping[str, float],
        max_norm: Mapping[str, float],
        momentum: float = 0.0,
        fisher_decay: float = 0.0,
        space: str = "auto",
    ) -> None:
        for label, values in (("learning_rate", lr), ("damping", damping), ("max_norm", max_norm)):
            for name in blocks:
                if not 0 < values[name] < math.inf:
                    raise SettingError(f"{name}_{label}", values[name], "must be positive and finite")
        for label, share in (("momentum", momentum), ("fisher_decay", fisher_decay)):
            if not 0 <= share < 1:
                raise SettingError(label, share, "must be at least 0 and below 1, such as 0.95")
        if space not in SPACES:
            raise SettingError("space", space, "is unknown", f"choose one of {', '.join(SPACES)}")
        if fisher_decay > 0 and space != "parameter":
            raise SettingError(
                "fisher_decay", fisher_decay, "averages the Fisher matrix: set optimizer.space=parameter"
            )
        groups = [
            {
                "params": list(parameters),
                "name": name,
                "lr": lr[name],
                "initial_lr": lr[name],
                "largest_step": lr[name],
                "damping": damping[name],
                "max_norm": max_norm[name],
                "num_skipped": 0,
            }
            for name, parameters in blocks.items()
        ]
        super().__init__(groups, {"momentum": momentum, "fisher_decay": fisher_decay, "space": space})
        self.report: dict[str, Tensor] = {}

    @property
    def num_skipped(self) -> int:
        """Updates of single blocks that were not applied."""
        return sum(group["num_skipped"] for group in self.param_groups)

    @torch.no_grad()
    def step(self, closure: Callable[[], dict[str, ScoreBlock]]) -> dict[str, ScoreBlock]:  # type: ignore[override]
        """Update all blocks from the samples that `closure` returns by the blocks' names.

        `report` holds then, for every block, the step and the length of the update in the metric of S.
        """
        blocks, collectives = closure(), Collectives()
        self.report = {}
        for group in self.param_groups:
            # Processes on different hardware must not decide differently.
            self._apply(group, self._direction(group, blocks[group["name"]], collectives).of_first_process(collectives))
        return blocks

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint, with the schedule where it was; the settings stay those of this run.

        Raises:
            ValueError: the checkpoint was made with another optimizer or other blocks.
        """
        names = [group["name"] for group in self.param_groups]
        if [group.get("name") for group in state_dict["param_groups"]] != names:
            reason = f"of {' and '.join(names)} did not make this checkpoint"
            remedy = "resume with the optimizer of the saved run, or start a new run"
            raise SettingError("optimizer", "natural_gradient", reason, remedy)
        own = [{key: group[key] for key in SETTINGS} for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, settings, saved in zip(self.param_groups, own, state_dict["param_groups"], strict=True):
            group |= settings
            # torch has cast it to the type of the parameter
            fisher = state_dict["state"].get(saved["params"][0], {}).get("fisher")
            if fisher is not None:
                self.state[group["params"][0]]["fisher"] = fisher.to(group["params"][0].device, copy=True)

    def _direction(self, group: dict[str, Any], block: ScoreBlock, collectives: Collectives) -> Direction:
        first = group["params"][0]
        last = torch.cat([self._last(parameter).flatten() for parameter in group["params"]])
        settings = SolveSettings(group["damping"], group["momentum"])
        rows = block.scores.shape[0] * block.scores.shape[1] * collectives.size
        if chosen_space(group["space"], rows, block.scores.shape[2]) == "sample":
            return minsr_direction(block, last, settings, collectives)
        fisher, force = fisher_and_force(block, collectives)
        if group["fisher_decay"] > 0:
            state, keep = self.state[first], group["fisher_decay"]
            before = state.get("fisher", fisher).to(fisher)
            if bool(torch.isfinite(fisher).all()):
                state["fisher"] = fisher = keep * before + (1.0 - keep) * fisher
        return sr_direction(fisher, force, last, settings)

    def _last(self, parameter: Tensor) -> Tensor:
        found: Tensor = self.state[parameter].setdefault("direction", torch.zeros_like(parameter))
        return found

    def _apply(self, group: dict[str, Any], found: Direction) -> None:
        squared = float(found.squared_norm)
        if not (bool(found.solved) and math.isfinite(squared) and bool(torch.isfinite(found.direction).all())):
            group["num_skipped"] += 1
            self.report |= _report(group["name"], float("nan"), float("nan"))
            return
        schedule = group["lr"] / group["initial_lr"]
        step = schedule * min(group["largest_step"], math.sqrt(group["max_norm"] / max(squared, 1e-300)))
        sizes = [parameter.numel() for parameter in group["params"]]
        for parameter, part in zip(group["params"], found.direction.split(sizes), strict=True):
            direction = part.view_as(parameter).to(parameter.dtype)
            self.state[parameter]["direction"] = direction.clone()
            parameter.sub_(step * direction)
        self.report |= _report(group["name"], step, step * math.sqrt(max(squared, 0.0)))


def chosen_space(space: str, num_rows: int, num_parameters: int) -> str:
    """Where `auto` solves: sample or parameter, whichever matrix is smaller."""
    return space if space != "auto" else "sample" if num_rows <= num_parameters else "parameter"


def _report(name: str, step: float, length: float) -> dict[str, Tensor]:
    return {f"{name}_step": torch.tensor(step), f"{name}_update": torch.tensor(length)}
