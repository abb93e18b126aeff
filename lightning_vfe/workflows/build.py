"""Module, datamodule and trainer from a config, and a look at them before a run."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lightning_vfe.errors import SettingError
from lightning_vfe.resources import resource_folder
from lightning_vfe.workflows.checkpoints import saved_fields
from lightning_vfe.workflows.guards import instantiate
from lightning_vfe.workflows.system import strata_of

SAME_POSITIONS = 1e-6
"""In bohr: what a file's digits may differ by."""
WALKER_KEYS = ("num_proton_walkers", "num_electron_walkers", "num_groups", "chain_precision")
"""Keys of the group `sampler` that the state takes: how many walkers there are, not how they move."""


def build_state(config: DictConfig) -> Any:
    """The variational state.

    Only sampled protons have a density. A structure's name stands for a file shipped with the package, if there is one.
    """
    node = config.state.copy()
    node._set_parent(config)
    moves = [key for key in node.sampler if key not in WALKER_KEYS]
    node.sampler = OmegaConf.masked_copy(node.sampler, moves)
    if config.system.protons != "sampled":
        node.proton_density = None
    return instantiate(node, structure=locate_structure(config.system.structure))


def build_trainer(config: DictConfig, verb: str, say: Callable[[str], None], progress: bool, command: str = "") -> Any:
    """Lightning's Trainer. Only `fit` writes metrics.csv; `validate` and `test` summarize.

    Args:
        config: the composed config.
        verb: fit, validate or test.
        say: called with a line during the run, such as when a signal is to end it.
        progress: show progress bars.
        command: what the user has called, for the files of results.
    """
    from lightning_vfe.training.resumed_optimizer import ResumedOptimizer
    from lightning_vfe.training.run.interrupt import StopOnInterrupt
    from lightning_vfe.training.run.launch import cluster_plugins, is_progress_bar
    from lightning_vfe.training.run.process_watch import ProcessWatch
    from lightning_vfe.training.run.run_folder import EmbedConfig
    from lightning_vfe.training.run.time_limit import TimeLimit

    callbacks = [instantiate(node) for node in config.callbacks.values() if node is not None]
    progress = progress and bool(config.trainer.get("enable_progress_bar", True))
    callbacks = [each for each in callbacks if progress or not is_progress_bar(each)]
    has_bar = any(is_progress_bar(each) for each in callbacks)  # or Lightning would add its own
    for each in callbacks:
        if hasattr(each, "say"):
            each.say = say
        if hasattr(each, "command"):
            each.command = command
    callbacks += [ResumedOptimizer(), StopOnInterrupt(say), ProcessWatch(), EmbedConfig(OmegaConf.to_yaml(config))]
    if max_time := config.trainer.get("max_time"):
        callbacks.append(TimeLimit(max_time if isinstance(max_time, str) else dict(max_time), say))
    logger: Any = [instantiate(node) for node in config.logger.values() if node is not None] if verb == "fit" else False
    given = {"callbacks": callbacks, "logger": logger, "enable_progress_bar": has_bar, "max_time": None}
    return instantiate(config.trainer, **given, **cluster_plugins())


def locate_structure(name: str) -> str:
    """Path of a shipped structure (`data/structures/NAME.xyz`); other names, and paths, stay as they are."""
    shipped = resource_folder("data") / "structures" / f"{name}.xyz"
    return str(shipped) if shipped.is_file() and not Path(name).exists() else name


def round_walkers(config: DictConfig) -> str:
    """Raise a default number of proton walkers to the next one that can be dealt to groups and strata.

    With sampled protons each stratum gets two walkers at least, since the gradient compares them.

    Returns:
        What was done, or nothing.
    """
    sampler, strata = config.sampler, strata_of(config)
    unit = math.lcm(sampler.num_groups, len(strata))
    least = max(sampler.num_proton_walkers, 2 * len(strata) if config.system.protons == "sampled" else 1)
    rounded = -(-least // unit) * unit
    if rounded == sampler.num_proton_walkers:
        return ""
    was, sampler.num_proton_walkers = sampler.num_proton_walkers, rounded
    return (
        f"sampler.num_proton_walkers: {rounded} in place of {was}, for {sampler.num_groups} groups and "
        f"{strata.num_states} states x {len(strata.twists)} twists"
    )


def resume_structure(config: DictConfig, state: Any, content: Mapping[str, Any]) -> str:
    """Let the protons of a resumed run stay, or start, where those of its checkpoint are: the file may have moved.

    Returns:
        A line where fixed protons stand elsewhere than in the file; else nothing.
    """
    import torch

    from lightning_vfe.physics.structures import make_structure

    fields = saved_fields(content)
    if not {"protons", "stratum"} <= set(fields):
        return ""
    index = state.strata.state_index(fields["stratum"])
    counts = index.bincount(minlength=state.strata.num_states) if int(index.min()) >= 0 else index[:0]
    if len(counts) != state.strata.num_states or not bool(counts.all()):
        reason = "holds walkers of other states than this run"
        raise SettingError("ckpt_path", config.ckpt_path, reason, "take another checkpoint")
    first = [int((index == number).nonzero()[0]) for number in range(state.strata.num_states)]
    state.structure = fields["protons"][first].to(torch.get_default_dtype())
    file = Path(locate_structure(config.system.structure))
    if not state.is_fixed or not file.is_file():
        return ""
    for point, kept in zip(state.strata.points, state.structure, strict=True):
        cell = point.cell(config.system.num_atoms)
        given = make_structure(str(file), cell, 1, torch.Generator())[0]
        if cell.minimum_image(given - kept.cpu() * point.rs).abs().max() > SAME_POSITIONS:
            return f"system.structure: {file} has changed; the protons are those of the checkpoint"
    return ""


def check_structure(config: DictConfig, strata: Any) -> None:
    """Place one walker's protons, so that a structure which does not fit is known before the folder is made.

    Raises:
        ValueError: unknown structure, or one of another number of atoms or another box.
    """
    import torch

    from lightning_vfe.physics.structures import make_structure, starts_of

    for point, start in itertools.product(strata.points, starts_of(locate_structure(config.system.structure))):
        cell, generator = point.cell(config.system.num_atoms), torch.Generator().manual_seed(config.seed)
        make_structure(start, cell, 1, generator)
