"""config.yaml of a run folder."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from lightning_vfe.errors import CommandError, one_line
from lightning_vfe.files import has_changed_text, whole_file, with_checksum_line

CONFIG_FILE = "config.yaml"
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
