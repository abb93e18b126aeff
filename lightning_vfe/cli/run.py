"""Carry out a plan: build module, datamodule and trainer from the config, look them over, and run the verb."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from omegaconf import DictConfig, OmegaConf

from lightning_vfe.cli.banner import print_banner
from lightning_vfe.cli.plan import HANDOVER, Plan
from lightning_vfe.cli.processes import is_first_process
from lightning_vfe.errors import SettingError
from lightning_vfe.workflows.build import (
    build_parts,
    build_trainer,
    check_data,
    is_variational,
    round_walkers,
    start_flow,
)
from lightning_vfe.workflows.checkpoints import (
    check_same_model,
    check_same_shapes,
    check_steps_left,
    embedded_config,
    load_checkpoint,
)
from lightning_vfe.workflows.guards import check_scalars, default_dtype, key_errors
from lightning_vfe.workflows.paths import check_folder
from lightning_vfe.workflows.system import strata_of

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
    from lightning_vfe.physics.chunking import keep_freed_memory
    from lightning_vfe.training.run.launch import configure_logging_and_seed, launch

    keep_freed_memory()
    content = load_checkpoint(plan.ckpt_path) if plan.ckpt_path is not None else {}
    stored = embedded_config(content)
    if stored is not None:
        check_same_model(config, stored)
    if plan.verb == "fit" and not plan.may_be_done:
        check_steps_left(config, content)
    configure_logging_and_seed(config.seed)
    with default_dtype(config.dtype), key_errors(config):
        module, datamodule = build_parts(config)
        if content:
            check_same_shapes(module.state_dict(), content["state_dict"])
        elif config.get("flow_ckpt"):
            start_flow(module, config)
        trainer = build_trainer(config, plan.verb)
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


def _check_limits(config: DictConfig) -> None:
    for key in ("max_steps", "max_epochs"):
        limit = config.trainer.get(key)
        if limit is not None and limit != -1 and limit < 1:
            raise SettingError(f"trainer.{key}", limit, "must be at least 1, or -1 for no limit")


def _check_system(config: DictConfig) -> None:
    """Look at the numbers that need no network, before the slow imports."""
    if config.system.protons not in ("sampled", "fixed"):
        raise SettingError("system.protons", config.system.protons, "does not exist", "there is: sampled, fixed")
    if config.sampler.num_groups < 1:
        raise SettingError("sampler.num_groups", config.sampler.num_groups, "must be at least 1")
    with key_errors(config):
        strata_of(config)


def _prepare_folder(plan: Plan) -> None:
    """Make the run folder and write config.yaml, whose interpolations are kept: overrides then reach all their uses."""
    if plan.is_new:
        plan.run_dir.mkdir(parents=True, exist_ok=True)
        if any(plan.run_dir.iterdir()):
            raise SettingError("run_dir", plan.run_dir, "was taken by another command meanwhile", "run this one again")
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
