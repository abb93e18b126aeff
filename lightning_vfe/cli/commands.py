"""The verbs that are no stage of Lightning's Trainer: each has its own root config and its own function."""

from importlib import import_module

from omegaconf import OmegaConf

from lightning_vfe.workflows.compose import compose_config
from lightning_vfe.workflows.guards import check_scalars, default_dtype, key_errors
from lightning_vfe.workflows.overrides import Overrides
from lightning_vfe.workflows.paths import check_folder


def run_command(verb: str, overrides: Overrides, print_only: bool) -> int:
    """Compose `configs/VERB.yaml` and hand it to `lightning_vfe.cli.VERB.run(config)`; returns its exit code.

    A ValueError of the command whose first word is a key of the config ends in one line.

    Raises:
        CommandError: bad override, or a value that the command refuses.
    """
    config = compose_config(overrides, root=verb)
    if print_only:
        print(OmegaConf.to_yaml(config), end="")
        return 0
    check_folder("run_dir", config.run_dir)
    if "dtype" in config:  # a command that computes nothing has no such keys
        check_scalars(config)
    with default_dtype(config.get("dtype", "float64")), key_errors(config):
        return import_module(f"lightning_vfe.cli.{verb.replace('-', '_')}").run(config)
