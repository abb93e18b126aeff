"""The shipped wavefunction from which a new run starts, where one was trained for its cell, twists and states."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lightning_vfe.errors import SettingError
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.resources import resource_folder
from lightning_vfe.workflows.checkpoints import load_checkpoint
from lightning_vfe.workflows.compatibility import check_same_network
from lightning_vfe.workflows.run_config import embedded_config

SAME_KEYS = ("num_atoms", "protons", "twists", "twist_shift")
"""Keys of `system` that are the same in the training of a wavefunction and where it is the start of another one."""


MAX_NORMS = {"wavefunction_ckpt": 2e-5, "init_from": 1e-4}
"""Trust regions of a wavefunction that starts from trained parameters, by the key that names their file.

Larger steps would scatter the parameters at first. The networks of `init_from` may come from other states, and need
longer steps than a wavefunction of this cell and its states.
"""


def choose_start(config: DictConfig, points: Iterable[StatePoint]) -> None:
    """Write into the config of a new run what `auto` and `null` stand for, where it depends on the start of psi.

    These are `wavefunction_ckpt=auto` and `optimizer.wavefunction_max_norm=null`.

    Args:
        config: changed in place.
        points: the states.
    """
    if config.get("wavefunction_ckpt") == "auto":
        path = None if config.get("init_from") else shipped_wavefunction(config, points)
        config.wavefunction_ckpt = None if path is None else f"data/{path.relative_to(resource_folder('data'))}"
    optimizer, trained = config.get("optimizer") or {}, [key for key in MAX_NORMS if config.get(key)]
    if trained and "wavefunction_max_norm" in optimizer and optimizer["wavefunction_max_norm"] is None:
        optimizer["wavefunction_max_norm"] = MAX_NORMS[trained[0]]


def shipped_wavefunction(config: DictConfig, points: Iterable[StatePoint]) -> Path | None:
    """The first file of `data/wavefunctions` that suits a run; None if there is none.

    A file suits if its wavefunction has the sizes of the config, was trained with the same number of sampled protons
    and the same twists, and if all states lie within the densities and temperatures of its training.

    Args:
        config: of the new run.
        points: its states.
    """
    states = [(point.rs, point.temperature_kelvin) for point in points]
    for path in sorted((resource_folder("data") / "wavefunctions").glob("*.ckpt")):
        content = load_checkpoint(path, "wavefunction_ckpt")
        if _is_of_same_cell(config, content, path) and _covers(content["system"]["states"], states):
            return path
    return None


def _is_of_same_cell(config: DictConfig, content: Mapping[str, Any], path: Path) -> bool:
    trained = embedded_config(content)
    if trained is None or any(_plain(config.system[key]) != _plain(trained.system[key]) for key in SAME_KEYS):
        return False
    try:
        check_same_network(config, trained, "wavefunction", path)
    except SettingError:
        return False
    return True


def _plain(value: Any) -> Any:
    """A list of a config as a list of Python."""
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _covers(trained: Iterable[Iterable[float]], states: Iterable[tuple[float, float]]) -> bool:
    """Whether the rectangle of the trained densities and temperatures contains all states."""
    limits = [(min(values), max(values)) for values in zip(*trained, strict=True)]
    return all(low <= value <= high for state in states for value, (low, high) in zip(state, limits, strict=True))
