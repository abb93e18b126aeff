"""Settings of an optimizer that were changed for a resumed run."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from lightning_vfe.errors import SettingError

LIKE_PARAMETERS = ("direction", "momentum_buffer", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "square_avg")
"""What optimizers keep for each number of a parameter."""


class ResumedOptimizer(Callback):
    """Gives a resumed optimizer of PyTorch, and its scheduler, the settings that have changed since the checkpoint.

    PyTorch keeps rates, weight decay and the like in the state of an optimizer, and loads them from a checkpoint over
    those of the config. This callback keeps in the checkpoint what they were when the optimizer was built. A setting
    that the config has changed is applied. The others stay as the checkpoint has them: a run without changes resumes to
    the same numbers. A rate that a scheduler has lowered is scaled by the ratio of the new first rate to the old one.
    """

    def __init__(self) -> None:
        self._built: dict[str, Any] | None = None
        self._saved: dict[str, Any] | None = None

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The checkpoint, if there is one, has been restored.

        Raises:
            SettingError: its optimizer has a tensor that does not fit the parameter which it belongs to.
        """
        if trainer.ckpt_path is not None:
            for optimizer in trainer.optimizers:
                _check_shapes(optimizer, trainer.ckpt_path)
        configured = pl_module.configure_optimizers() if pl_module.automatic_optimization else None
        if isinstance(configured, torch.optim.Optimizer):
            configured = {"optimizer": configured}
        if not isinstance(configured, dict):
            return  # the natural gradient reads its settings from the config; own modules may have several optimizers
        self._built = _describe(configured["optimizer"], _scheduler(configured))
        if trainer.ckpt_path is not None:
            optimizer = trainer.optimizers[0]
            scheduler = trainer.lr_scheduler_configs[0].scheduler if trainer.lr_scheduler_configs else None
            _apply(optimizer, scheduler, self._saved or _first_values(optimizer), self._built)

    def state_dict(self) -> dict[str, Any]:
        """The settings with which the optimizer was built."""
        return {} if self._built is None else self._built

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The settings of the checkpoint's run."""
        self._saved = state_dict or None


def _check_shapes(optimizer: torch.optim.Optimizer, path: object) -> None:
    """Compare the tensors that an optimizer keeps for a parameter with it."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if name in LIKE_PARAMETERS and getattr(value, "shape", None) != parameter.shape:
                shape = tuple(getattr(value, "shape", ()))
                what = f"{name} {shape} for a parameter {tuple(parameter.shape)}"
                reason = f"holds an optimizer state that does not fit: {what}"
                raise SettingError("ckpt_path", path, reason, "take another checkpoint")


def _scheduler(configured: Any) -> Any:
    """The scheduler in what configure_optimizers returns, or None."""
    schedule = configured.get("lr_scheduler")
    return schedule["scheduler"] if isinstance(schedule, dict) else schedule


def _describe(optimizer: torch.optim.Optimizer, scheduler: Any) -> dict[str, Any]:
    """The plain settings of both."""
    groups = [_plain(group) for group in _groups(optimizer)]
    return {"groups": groups, "schedule": {} if scheduler is None else _plain(scheduler.state_dict())}


def _first_values(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What a checkpoint without this callback says about the settings: the first rate and the weight decay."""
    names = ("initial_lr", "weight_decay")
    groups = [{name: group[name] for name in names if name in group} for group in _groups(optimizer)]
    schedule = {"base_lrs": [group["initial_lr"] for group in groups if "initial_lr" in group]}
    return {"groups": groups, "schedule": schedule}


def _apply(optimizer: torch.optim.Optimizer, scheduler: Any, saved: dict[str, Any], built: dict[str, Any]) -> None:
    """Apply to both what differs between the settings of the checkpoint's run and those of this one."""
    for group, old, new in zip(_groups(optimizer), saved["groups"], built["groups"], strict=True):
        first = "initial_lr" if "initial_lr" in new else "lr"
        if old.get(first, new[first]) != new[first]:
            # a schedule of the rate zero has no shape that could be scaled
            group["lr"] = group["lr"] * new[first] / old[first] if old[first] else new[first]
        group |= {name: value for name, value in new.items() if name != "lr" and old.get(name, value) != value}
    for name, value in built["schedule"].items():
        if saved["schedule"].get(name, value) != value:
            setattr(scheduler, name, value)


def _groups(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    return optimizer.param_groups


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Numbers, words and lists of them, as a checkpoint holds them."""
    return {name: value for name, value in settings.items() if name != "params" and _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(one) for one in value)
    return isinstance(value, int | float | str | None)
