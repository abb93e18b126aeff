"""What a new variational run starts from: networks of other runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from lightning_vfe.errors import SettingError
from lightning_vfe.resources import data_file, data_folder
from lightning_vfe.workflows.checkpoints import checkpoint_of, load_checkpoint
from lightning_vfe.workflows.compatibility import check_same_network
from lightning_vfe.workflows.restore import restore
from lightning_vfe.workflows.run_config import embedded_config

OCCUPATIONS = ("envelope.log_occupation", "envelope.occupation_power")
"""Parameters of psi that belong to the plane waves of one number of atoms."""


def start_networks(module: Any, config: DictConfig) -> list[str]:
    """Give a new variational run the networks that `init_from`, `wavefunction_ckpt` and `flow_ckpt` name.

    Returns:
        Lines for the user: what started from where.

    Raises:
        SettingError: there is no such checkpoint, or its networks have other sizes.
    """
    notes = []
    if config.get("init_from"):
        path = checkpoint_of(data_folder(config.init_from))
        content = load_checkpoint(path, key="init_from")
        start_wavefunction(module, config, content, "init_from", path)
        parts = ["wavefunction"]
        if module.proton_density is not None and _holds(content, "proton_density.flow"):
            start_flow(module, config, content, "init_from", path)
            parts.append("flow")
        notes.append(f"{' and '.join(parts)} start{'' if len(parts) > 1 else 's'} from {path}")
    if config.get("wavefunction_ckpt"):
        name = config.wavefunction_ckpt
        path = data_file(name)
        start_wavefunction(module, config, load_checkpoint(path, "wavefunction_ckpt"), "wavefunction_ckpt", path)
        notes.append(f"wavefunction starts from {name}; wavefunction_ckpt=null starts from random parameters")
    if config.get("flow_ckpt"):
        path = Path(config.flow_ckpt)
        start_flow(module, config, load_checkpoint(path, key="flow_ckpt"), "flow_ckpt", path)
    return notes


def start_flow(module: Any, config: DictConfig, content: Mapping[str, Any], key: str, path: Path) -> None:
    """Take the flow of a checkpoint.

    Number of atoms and state points may differ, since no parameter's shape depends on them: the flow of a neighbouring
    state point is a fair start.

    Raises:
        SettingError: the protons are fixed, or the checkpoint holds no flow of this kind.
    """
    if module.proton_density is None:
        raise SettingError(key, path, "needs moving protons", "set system.protons=sampled")
    _check(config, content, "flow", path)
    restore(module.proton_density.flow, content, "proton_density.flow", key, path)


def start_wavefunction(module: Any, config: DictConfig, content: Mapping[str, Any], key: str, path: Path) -> None:
    """Take the wavefunction of a checkpoint; number of atoms, state points and twists may differ.

    The reference density comes with the parameters, since their ranges scale from it. The occupations of the plane
    waves are taken only with the number of atoms that they belong to.

    Raises:
        SettingError: the checkpoint holds no wavefunction of this kind.
    """
    _check(config, content, "wavefunction", path)
    own, atoms = module.wavefunction.state_dict(), content.get("system", {}).get("num_atoms")
    state = dict(content["state_dict"])
    for name in OCCUPATIONS:
        saved = state.get(f"wavefunction.{name}")
        if name in own and saved is not None and (saved.shape != own[name].shape or atoms != config.system.num_atoms):
            state[f"wavefunction.{name}"] = own[name]
    restore(module.wavefunction, {"state_dict": state}, "wavefunction", key, path)


def _check(config: DictConfig, content: Mapping[str, Any], group: str, path: Path) -> None:
    stored = embedded_config(content)
    if stored is not None and group in stored:
        check_same_network(config, stored, group, path)


def _holds(content: Mapping[str, Any], part: str) -> bool:
    return any(name.startswith(f"{part}.") for name in content["state_dict"])
