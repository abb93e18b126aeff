"""Carry out a plan: build module, datamodule and trainer from the config, look them over, and run the verb."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lightning_vfe._cli.banner import is_variational, print_banner
from lightning_vfe._cli.checkpoints import (
    check_same_flow,
    check_same_model,
    check_same_shapes,
    check_steps_left,
    embedded_config,
    load_checkpoint,
)
from lightning_vfe._cli.errors import CommandError
from lightning_vfe._cli.guards import check_scalars, default_dtype, instantiate, key_errors
from lightning_vfe._cli.paths import check_folder
from lightning_vfe._cli.plan import HANDOVER, Plan
from lightning_vfe._cli.processes import is_first_process
from lightning_vfe._cli.system import strata_of
from lightning_vfe.resources import resource_folder

STOPPED = 128
"""Exit code of a run that a signal has stopped, plus the number of the signal: 130 after Ctrl-C."""


def run(plan: Plan) -> int:
    """Run the planned verb; returns the exit code.

    Raises:
        CommandError: a value that a constructor refuses, a checkpoint that does not fit, or walkers that do not divide.
    """
    config, is_first = plan.config, is_first_process()
    if is_first:
        check_folder("run_dir", plan.run_dir)
    check_scalars(config)
    if plan.verb == "fit":
        _check_limits(config)
        if is_first and (folder := OmegaConf.select(config, "callbacks.checkpoint.dirpath")) is not None:
            check_folder("callbacks.checkpoint.dirpath", folder)
    if is_variational(config):
        _check_system(config)
        note = round_walkers(config) if plan.may_round_walkers else ""
        if note and is_first:
            print(note)
    # these imports take seconds
    from lightning_vfe.physics.blocks import keep_freed_memory
    from lightning_vfe.training.launch import launch, quiet

    keep_freed_memory()
    content = load_checkpoint(plan.ckpt_path) if plan.ckpt_path is not None else {}
    stored = embedded_config(content)
    if stored is not None:
        check_same_model(config, stored)
    if plan.verb == "fit" and not plan.may_be_done:
        check_steps_left(config, content)
    quiet(config.seed)
    with default_dtype(config.dtype), key_errors(config):
        module, datamodule = build_parts(config)
        if content:
            check_same_shapes(module.state_dict(), content["state_dict"])
        elif config.get("flow_ckpt"):
            start_flow(module, config)
        trainer = build_trainer(config, plan.verb)
        if plan.verb == "fit" and not is_variational(config) and trainer.max_steps == trainer.max_epochs == -1:
            module.optimizer_settings.check_end(math.inf)
        check_data(config, module, datamodule, trainer.world_size)
        if is_first:
            _prepare_folder(plan)
            print_banner(plan, module, datamodule, trainer)
        with _handed_over(plan):
            signal_number = launch(trainer, plan.verb, module, datamodule, plan.config.ckpt_path)
    if is_first:
        _say_what_next(plan, interrupted=signal_number > 0)
    if signal_number and Plan.received() is None:
        return STOPPED + signal_number
    return 0  # Lightning takes any other code of a process that it started for a crash


def build_parts(config: DictConfig) -> tuple[Any, Any]:
    """The LightningModule and the LightningDataModule, in the current default dtype.

    Those of a variational run share one state: networks, moves and walkers.
    """
    if not is_variational(config):
        return instantiate(config.module), instantiate(config.datamodule)
    state = build_state(config)
    return instantiate(config.module, state=state), instantiate(config.datamodule, state=state)


def build_state(config: DictConfig) -> Any:
    """The variational state. Fixed protons have no density; a structure's name stands for a file shipped with the
    package where there is one."""
    node = config.state.copy()
    node._set_parent(config)
    if config.system.protons == "fixed":
        node.proton_density = None
    return instantiate(node, structure=locate_structure(config.system.structure))


def build_trainer(config: DictConfig, verb: str) -> Any:
    """Lightning's Trainer. Only `fit` writes metrics.csv; `validate` and `test` print and summarize."""
    from lightning_vfe.training.launch import cluster_plugins
    from lightning_vfe.training.run_folder import EmbedConfig, StopOnInterrupt

    callbacks = [instantiate(node) for node in config.callbacks.values()]
    callbacks += [StopOnInterrupt(), EmbedConfig(OmegaConf.to_yaml(config))]
    logger: Any = [instantiate(node) for node in config.logger.values()] if verb == "fit" else False
    return instantiate(config.trainer, callbacks=callbacks, logger=logger, **cluster_plugins())


def locate_structure(name: str) -> str:
    """Path of a shipped structure (`data/structures/NAME.xyz`); other names, and paths, stay as they are."""
    shipped = resource_folder("data") / "structures" / f"{name}.xyz"
    return str(shipped) if shipped.is_file() and not Path(name).exists() else name


def start_flow(module: Any, config: DictConfig) -> None:
    """Give a new variational run the flow of the checkpoint flow_ckpt.

    Raises:
        CommandError: the protons are fixed, or the checkpoint holds no flow of this kind and system.
    """
    from lightning_vfe.training.flow_checkpoint import load_flow

    if module.proton_density is None:
        raise CommandError(f"flow_ckpt = {config.flow_ckpt} needs moving protons; set system.protons=sampled")
    content = load_checkpoint(Path(config.flow_ckpt), key="flow_ckpt")
    stored = embedded_config(content)
    if stored is not None and "flow" in stored:
        check_same_flow(config, stored)
    load_flow(module.proton_density.flow, content, config.flow_ckpt)


def check_data(config: DictConfig, module: Any, datamodule: Any, num_ranks: int) -> None:
    """Look over what the run computes with before its folder is made: walkers and structure, or the data it reads.

    Raises:
        CommandError: walkers do not divide.
        ValueError: a structure or data that cannot be used.
    """
    if is_variational(config):
        check_walkers(config, module.state.strata, num_ranks)
        check_structure(config, module.state.strata)
    else:
        datamodule.read(num_ranks)
        if config.task == "potential":
            module.check(datamodule)


def check_walkers(config: DictConfig, strata: Any, num_ranks: int) -> None:
    """Walkers must divide into groups and strata, and groups into the processes that own them.

    Raises:
        CommandError: they do not.
    """
    walkers, groups = config.sampler.num_proton_walkers, config.sampler.num_groups
    for key, value, what, divisor in (
        ("sampler.num_groups", groups, "processes (trainer.devices x trainer.num_nodes)", num_ranks),
        ("sampler.num_proton_walkers", walkers, "walker groups of sampler.num_groups", groups),
        ("sampler.num_proton_walkers", walkers, "twists of system.twists, times state points", len(strata)),
    ):
        if value < 1 or value % divisor:
            fit = max(1, -(-value // divisor)) * divisor
            raise CommandError(f"{key} = {value} must be a multiple of the {divisor} {what}; {fit} is one")


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


def check_structure(config: DictConfig, strata: Any) -> None:
    """Place one walker's protons, so that a structure which does not fit is known before the folder is made.

    Raises:
        ValueError: unknown structure, or one of another number of atoms or another box.
    """
    import torch

    from lightning_vfe.physics.structures import make_structure

    for point in strata.points:
        cell, generator = point.cell(config.system.num_atoms), torch.Generator().manual_seed(config.seed)
        make_structure(locate_structure(config.system.structure), cell, 1, generator)


def _check_limits(config: DictConfig) -> None:
    for key in ("max_steps", "max_epochs"):
        limit = config.trainer.get(key)
        if limit is not None and limit != -1 and limit < 1:
            raise CommandError(f"trainer.{key} = {limit} must be at least 1, or -1 for no limit")


def _check_system(config: DictConfig) -> None:
    """Look at the numbers that need no network, before the slow imports."""
    if config.system.protons not in ("sampled", "fixed"):
        raise CommandError(f"system.protons = {config.system.protons} does not exist; there is: sampled, fixed")
    if config.sampler.num_groups < 1:
        raise CommandError(f"sampler.num_groups = {config.sampler.num_groups} must be at least 1")
    with key_errors(config):
        strata_of(config)


def _prepare_folder(plan: Plan) -> None:
    """Make the run folder and write config.yaml, whose interpolations are kept: overrides then reach all their uses."""
    if plan.is_new:
        plan.run_dir.mkdir(parents=True, exist_ok=True)
        if any(plan.run_dir.iterdir()):
            raise CommandError(f"run_dir = {plan.run_dir} was taken by another command meanwhile; run this one again")
    if plan.is_new or plan.verb == "fit":
        fresh = plan.run_dir / "config.yaml.new"
        fresh.write_text(OmegaConf.to_yaml(plan.config))
        fresh.replace(plan.run_dir / "config.yaml")


@contextmanager
def _handed_over(plan: Plan) -> Iterator[None]:
    """Lightning starts further processes with the same command line; they take the plan from the environment."""
    os.environ[HANDOVER] = plan.hand_over()
    try:
        yield
    finally:
        del os.environ[HANDOVER]


def _say_what_next(plan: Plan, interrupted: bool) -> None:
    is_saved = (plan.run_dir / "checkpoints" / "last.ckpt").is_file()
    if interrupted and is_saved:
        print(f"interrupted; go on with: lightning-vfe {plan.verb} ckpt_path=last run_dir={plan.run_dir}")
    elif interrupted:
        print("interrupted before the first step; nothing is saved")
    elif plan.verb == "fit" and is_saved:
        print(f"next: lightning-vfe test run_dir={plan.run_dir}")
    elif plan.verb == "fit":
        print(f"no checkpoint in {plan.run_dir / 'checkpoints'}; there is nothing to test")
