"""Parameters of a checkpoint into a network: the whole module, or one part of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from lightning_vfe.errors import SettingError

POTENTIAL_FILES = {
    "proton_density.base.potential": "base.potential_path",
    "target.potential": "data.target.potential_path",
    "potential.baseline": "potential.baseline.path",
}
"""Parts of a module with parameters from a file, and the keys of these files."""


def check_same_shapes(own: Mapping[str, Any], saved: Mapping[str, Any], path: object) -> None:
    """Compare names and shapes of parameters with those of a checkpoint; `path` is its file, for the message.

    Raises:
        SettingError: the first parameter that differs.
    """
    difference = _first_difference(own, saved)
    if difference is not None:
        reason = f"is of another model: {difference} in the checkpoint"
        raise SettingError("ckpt_path", path, reason, "give the checkpoint of a run with these settings")


def check_same_potential(config: DictConfig, module: nn.Module, content: Mapping[str, Any]) -> None:
    """Compare the potentials that files bring into a module with those of a checkpoint, number by number.

    The path of a potential says nothing: the file may have moved, or may have been rewritten since.

    Raises:
        SettingError: a potential has other parameters.
    """
    own, saved = module.state_dict(), content["state_dict"]
    for part, key in POTENTIAL_FILES.items():
        names = [name for name in own if name.startswith(f"{part}.") and name in saved]
        differing = [name for name in names if not torch.equal(own[name].cpu(), saved[name].to(own[name].dtype).cpu())]
        if differing:
            reason = "holds another potential than that of the checkpoint"
            raise SettingError(key, OmegaConf.select(config, key), reason, f"give {key}=FILE with that one")


def restore(
    network: nn.Module, content: Mapping[str, Any], part: str, key: str = "ckpt_path", path: object = "checkpoint"
) -> None:
    """Load parameters from the content of a checkpoint, in place.

    Args:
        network: gets the parameters.
        content: of the checkpoint, with its `state_dict`.
        part: attribute path of the network in the module of the checkpoint, such as `proton_density.flow`; empty for
            the whole module.
        key: setting that names the checkpoint, for messages.
        path: the checkpoint, for messages.

    Raises:
        SettingError: the checkpoint has no such part, one of other sizes, or numbers that are not finite.
    """
    prefix = f"{part}." if part else ""
    saved = {name[len(prefix) :]: value for name, value in content["state_dict"].items() if name.startswith(prefix)}
    if not saved:
        raise SettingError(key, path, f"holds no {part}", "give the checkpoint of a run that trained one")
    difference = _first_difference(network.state_dict(), saved)
    if difference is not None:
        reason = f"is of another {part or 'model'}: {difference} in it"
        raise SettingError(key, path, reason, "choose the settings of that run")
    broken = next((name for name, value in saved.items() if not bool(value.isfinite().all())), None)
    if broken is not None:
        raise SettingError(key, path, f"holds numbers that are not finite in {broken}", "take another checkpoint")
    network.load_state_dict(saved)


def _first_difference(own: Mapping[str, Any], saved: Mapping[str, Any]) -> str | None:
    for name in [*own, *(name for name in saved if name not in own)]:
        here, there = (tuple(state[name].shape) if name in state else "absent" for state in (own, saved))
        if here != there:
            return f"parameter {name} is {here} here but {there}"
    return None
