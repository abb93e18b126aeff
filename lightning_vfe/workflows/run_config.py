"""The config that a run has stored: config.yaml in its folder, and a copy in its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lightning_vfe import __version__
from lightning_vfe.errors import CommandError, SettingError, one_line
from lightning_vfe.files import has_changed_text, whole_file, with_checksum_line
from lightning_vfe.workflows.schema import check_types

CONFIG_FILE = "config.yaml"
SCHEMA = 2
"""Layout of the config: configs/config.yaml says the same."""
_REMEDY = "delete it: the checkpoint holds a copy, and key=value on the command line changes settings"


def write_config(folder: Path, config: DictConfig) -> None:
    """Write the config with its interpolations, so that overrides reach all their uses, and with its checksum.

    Raises:
        OSError: the folder cannot be written to.
    """
    with whole_file(folder / CONFIG_FILE) as stream:
        stream.write(with_checksum_line(OmegaConf.to_yaml(config)))


def read_config(folder: Path) -> DictConfig:
    """The config of a run, as it was written.

    Raises:
        CommandError: the file is damaged, or has changed since it was written.
    """
    file = folder / CONFIG_FILE
    try:
        text = file.read_text(encoding="utf-8")
        config = OmegaConf.create(text)
        OmegaConf.to_container(config, resolve=True)  # a part of a config refers to groups that it lacks
    except Exception as error:  # YAML and OmegaConf each have errors of their own
        raise CommandError(f"{file} cannot be read: {one_line(error)[:200]}; {_REMEDY}") from error
    if has_changed_text(text) or not isinstance(config, DictConfig) or "name" not in config:
        what = "it does not have its checksum" if has_changed_text(text) else "it holds no settings of a run"
        raise CommandError(f"{file} is damaged ({what}); {_REMEDY}")
    return config


def embedded_config(content: Mapping[str, Any]) -> DictConfig | None:
    """The config that the run wrote into its checkpoint; None for one written without the command line."""
    from lightning_vfe.training.run.run_folder import CONFIG_KEY

    text = content.get(CONFIG_KEY)
    if text is None:
        return None
    try:
        config = OmegaConf.create(text)
    except Exception as error:  # YAML and OmegaConf each have errors of their own
        raise CommandError(f"the config in the checkpoint cannot be read: {one_line(error)[:200]}") from error
    if not isinstance(config, DictConfig):
        raise CommandError("the checkpoint holds no settings of a run; give one that fit wrote")
    check_schema(config, "the checkpoint")
    return config


def check_schema(config: Mapping[str, Any], where: object) -> None:
    """Refuse the config of a run that a version with another layout has made.

    Raises:
        CommandError: it is one.
    """
    found = config.get("schema", 1)
    if found != SCHEMA:
        raise CommandError(
            f"{where} was made by another version of lightning-vfe (its config has schema {found}, this version, "
            f"{__version__}, has {SCHEMA}); continue and measure it with that version, or start a new run with fit"
        )


def check_readable(config: DictConfig, where: object) -> None:
    """Refuse the config of a run that has keys which this version does not take.

    Raises:
        CommandError: it has one; the message names the version that made the run.
    """
    check_schema(config, where)
    try:
        check_types(config)
    except SettingError as error:
        made = config.get("version")
        if made == __version__:
            raise CommandError(f"{where}: {error}") from error
        by = f"version {made}" if made else "another version"
        raise CommandError(
            f"{where} was made by {by} of lightning-vfe, and this is version {__version__}: {error}; continue and "
            "measure it with that version, or start a new run with fit"
        ) from error
