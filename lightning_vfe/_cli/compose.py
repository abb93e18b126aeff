"""Compose a config from the package's groups, without a working-directory change or an output folder."""

from functools import cache

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from lightning_vfe._cli.errors import CommandError, one_line
from lightning_vfe._cli.overrides import Overrides, apply
from lightning_vfe.resources import resource_folder

RUN_ROOT = "config"
"""The root config of the verbs that run Lightning's Trainer; any other verb has one of its own name."""


def compose_config(overrides: Overrides, root: str = RUN_ROOT) -> DictConfig:
    """Config of the chosen groups with the single-key overrides applied.

    Args:
        overrides: of the command line.
        root: the file `configs/ROOT.yaml` that lists the groups.

    Raises:
        CommandError: unknown key, wrong type, or choices that do not fit together.
    """
    for group in overrides.groups:
        if group not in groups_of(root):
            verb = "fit" if root == RUN_ROOT else root
            raise CommandError(
                f"{group} = {overrides.groups[group]} is not possible with {verb}; "
                f"its config groups are: {', '.join(groups_of(root))}"
            )
    choices = [f"{group}={'null' if option is None else option}" for group, option in overrides.groups.items()]
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(resource_folder("configs"))):
            config = compose(config_name=root, overrides=choices)
    except HydraException as error:
        raise CommandError(f"cannot compose {' '.join(choices)}: {one_line(error)}") from error
    return override_config(config, overrides)


@cache
def groups_of(root: str) -> tuple[str, ...]:
    """The config groups that the defaults list of `configs/ROOT.yaml` names."""
    content = OmegaConf.load(resource_folder("configs") / f"{root}.yaml")
    entries = [entry for entry in content.defaults if not isinstance(entry, str)]
    names = [str(key).removeprefix("optional ").removeprefix("override ") for entry in entries for key in entry]
    return tuple(name.partition("@")[0] for name in names)


def override_config(config: DictConfig, overrides: Overrides) -> DictConfig:
    """Apply the single-key overrides, and make sure that every interpolation still finds its key."""
    apply(config, overrides.keys)
    try:
        OmegaConf.to_container(config, resolve=True)
    except Exception as error:
        raise CommandError(f"the config does not resolve: {one_line(error)}") from error
    return config
