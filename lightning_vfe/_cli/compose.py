"""Compose a config from the package's groups, without a working-directory change or an output folder."""

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from lightning_vfe._cli.errors import CommandError, one_line
from lightning_vfe._cli.overrides import Overrides, apply
from lightning_vfe.resources import resource_folder


def compose_config(overrides: Overrides) -> DictConfig:
    """Config of the chosen groups with the single-key overrides applied.

    Raises:
        CommandError: unknown key, wrong type, or choices that do not fit together.
    """
    choices = [f"{group}={'null' if option is None else option}" for group, option in overrides.groups.items()]
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(resource_folder("configs"))):
            config = compose(config_name="config", overrides=choices)
    except HydraException as error:
        raise CommandError(f"cannot compose {' '.join(choices)}: {one_line(error)}") from error
    return override_config(config, overrides)


def override_config(config: DictConfig, overrides: Overrides) -> DictConfig:
    """Apply the single-key overrides, and make sure that every interpolation still finds its key."""
    apply(config, overrides.keys)
    try:
        OmegaConf.to_container(config, resolve=True)
    except Exception as error:
        raise CommandError(f"the config does not resolve: {one_line(error)}") from error
    return config
