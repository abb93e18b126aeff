"""The config of a command that begins at a checkpoint: that of its run, with the choices of the command line."""

import inspect
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from lightning_vfe.errors import SettingError
from lightning_vfe.workflows.checkpoints import load_checkpoint
from lightning_vfe.workflows.compose import compose_config, override_config
from lightning_vfe.workflows.overrides import Overrides
from lightning_vfe.workflows.run_config import CONFIG_FILE, check_readable, embedded_config, read_config
from lightning_vfe.workflows.schema import default_of


def config_of_checkpoint(checkpoint: Path, home: Path | None, overrides: Overrides) -> DictConfig:
    """Config of the checkpoint's run, with the chosen groups in the place of its own and the single keys on top.

    Raises:
        CommandError: the config cannot be read, or an experiment is chosen that is not the run's.
    """
    stored: DictConfig | None
    if home is not None and (home / CONFIG_FILE).is_file() and checkpoint.is_file():
        stored = read_config(home)
    else:
        stored = embedded_config(load_checkpoint(checkpoint))
    if stored is None or "name" not in stored:
        return compose_config(overrides)
    _complete(stored)
    _add_arguments(stored, overrides)
    check_readable(stored, checkpoint if home is None else home)
    chosen, name = overrides.groups, overrides.value("name") or overrides.groups.get("experiment")
    is_other = {
        "experiment": "experiment" in chosen and str(name) != str(stored.name),
        "task": "task" in chosen and chosen["task"] != stored.get("task"),
    }
    for group in (group for group, other in is_other.items() if other):
        raise SettingError(
            group,
            chosen[group],
            f"is not that of {checkpoint} (name = {stored.name}), whose settings it would drop",
            "leave it out: the run brings its config along, and single keys change it",
        )
    others = {group: option for group, option in chosen.items() if group not in is_other}
    if others:
        fresh = compose_config(Overrides({"task": stored.get("task"), **others}))
        for group in others:
            stored[group] = fresh[group]
    OmegaConf.set_struct(stored, True)
    return override_config(stored, overrides)


def _complete(stored: DictConfig) -> None:
    """Give the config of an earlier version the keys that it lacks, with values that change nothing."""
    for key in ("max_chunk_elements", "version"):
        stored.setdefault(key, None)
    if isinstance(stored.get("trainer"), DictConfig):
        stored.trainer.setdefault("max_time", None)
    if "state" in stored and isinstance(stored.get("datamodule"), DictConfig):
        stored.setdefault("target_error", None)
        stored.datamodule.setdefault("target_error", "${target_error}")
        stored.datamodule.setdefault("max_test_steps", 10_000)
        stored.module.setdefault("momentum_points", 1)


def _add_arguments(stored: DictConfig, overrides: Overrides) -> None:
    """Give the config of an earlier version the keys of the command line that it lacks.

    They are arguments of a class that has got them since, and take its defaults, which the run has had, too.
    """
    for key in (override.key_or_group for override in overrides.keys):
        home, _, name = key.rpartition(".")
        node = OmegaConf.select(stored, home) if home else None
        if isinstance(node, DictConfig) and "_target_" in node and name not in node:
            default = default_of(node._target_, name)
            if default is not inspect.Parameter.empty:
                node[name] = default
