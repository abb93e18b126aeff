"""Compose a config from the package's groups, without a working-directory change or an output folder."""

import re
from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lightning_vfe.errors import CommandError, SettingError, one_line
from lightning_vfe.resources import resource_folder
from lightning_vfe.workflows.overrides import Overrides, apply

RUN_ROOT = "config"
"""The root config of the verbs that run Lightning's Trainer; any other verb has one of its own name."""
COMPANIONS = {"fixed": {"sampler": "fixed"}, "none": {"sampler": "fixed", "wavefunction": "jellium"}}
"""Groups that go with a value of system.protons."""


def compose_config(overrides: Overrides, root: str = RUN_ROOT) -> DictConfig:
    """Config of the chosen groups with the single-key overrides applied.

    Args:
        overrides: of the command line.
        root: the file `configs/ROOT.yaml` that lists the groups.

    Raises:
        CommandError: unknown key, wrong type, or choices that do not fit together.
    """
    _check_task(overrides)
    groups = overrides.groups | (companions(overrides) if root == RUN_ROOT else {})
    choices = [f"{group}={'null' if option is None else option}" for group, option in groups.items()]
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(resource_folder("configs"))):
            config = compose(config_name=root, overrides=choices)
    except (HydraException, OmegaConfBaseException, KeyError) as error:
        refused = re.search(r"Could not override '(\w+)'", str(error))
        if refused is not None:
            raise CommandError(_not_a_group_here(refused[1], overrides, root)) from error
        raise CommandError(f"cannot compose {' '.join(choices)}: {one_line(error)}") from error
    return override_config(config, overrides)


def companions(overrides: Overrides) -> dict[str, str | None]:
    """Groups that protons which are fixed, or not there, bring along where nobody chose them."""
    if _task_of(overrides) != "variational":
        return {}
    wanted = COMPANIONS.get(str(overrides.value("system.protons")), {})
    return {
        group: option
        for group, option in wanted.items()
        if group not in overrides.groups and overrides.value(group) is None
    }


def _task_of(overrides: Overrides) -> str:
    """The task that a command names, or its experiment brings."""
    return overrides.groups.get("task") or _task_of_experiment(overrides.groups.get("experiment")) or "variational"


def _task_of_experiment(experiment: str | None) -> str | None:
    """The task that an experiment names; None where it names none."""
    if experiment is None:
        return None
    content = OmegaConf.load(resource_folder("configs") / "experiment" / f"{experiment}.yaml")
    assert isinstance(content, DictConfig)
    entries = [entry for entry in content.get("defaults", []) if not isinstance(entry, str)]
    chosen = [str(option) for entry in entries for key, option in entry.items() if str(key).endswith("/task")]
    return chosen[0] if chosen else None


def _check_task(overrides: Overrides) -> None:
    """Refuse a task beside an experiment of another one.

    Raises:
        SettingError: it is one.
    """
    task, experiment = overrides.groups.get("task"), overrides.groups.get("experiment")
    if task is None or experiment is None:
        return
    own = _task_of_experiment(experiment) or "variational"
    if task != own:
        remedy = "leave it out: the experiment brings its task"
        raise SettingError("task", task, f"is not that of experiment={experiment}, which is {own}", remedy)


def groups_of(root: str) -> tuple[str, ...]:
    """The config groups that the defaults list of `configs/ROOT.yaml` names, and those that its tasks name."""
    found = list(_named_groups(resource_folder("configs") / f"{root}.yaml"))
    if "task" in found:
        for file in sorted((resource_folder("configs") / "task").glob("*.yaml")):
            found += [name for name in _named_groups(file) if name not in found]
    return tuple(found)


@cache
def _named_groups(file: Path) -> tuple[str, ...]:
    content = OmegaConf.load(file)
    assert isinstance(content, DictConfig)
    entries = [entry for entry in content.get("defaults", []) if not isinstance(entry, str)]
    keys = [str(key).rpartition(" ")[2] for entry in entries for key in entry]  # without `optional`, `override`
    return tuple(key.partition("@")[0].removeprefix("/") for key in keys)


def _not_a_group_here(group: str, overrides: Overrides, root: str) -> str:
    choice = f"{group} = {overrides.groups[group]} is not possible"
    if root != RUN_ROOT:
        return f"{choice} with {root}; its config groups are: {', '.join(groups_of(root))}"
    experiment = overrides.groups.get("experiment")
    users = [file.stem for file in sorted((resource_folder("configs") / "task").glob("*.yaml"))]
    users = [task for task in users if group in _named_groups(resource_folder("configs") / "task" / f"{task}.yaml")]
    where = f"experiment {experiment}" if experiment else f"task {overrides.groups.get('task') or 'variational'}"
    return f"{choice} in {where}; the group {group} belongs to: " + (
        ", ".join(f"task {task}" for task in users) or "other verbs"
    )


def override_config(config: DictConfig, overrides: Overrides) -> DictConfig:
    """Apply the single-key overrides, and make sure that every interpolation still finds its key."""
    apply(config, overrides.keys)
    try:
        OmegaConf.to_container(config, resolve=True)
    except Exception as error:
        raise CommandError(f"the config does not resolve: {one_line(error)}") from error
    return config
