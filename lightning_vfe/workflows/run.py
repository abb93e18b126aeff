"""Carry out a plan: build module, datamodule and trainer from the config, look them over, and run the verb."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from lightning_vfe.analysis.folder import tables_folder
from lightning_vfe.analysis.run import RunFolder, check_files, results_table
from lightning_vfe.errors import CommandError, SettingError, one_line
from lightning_vfe.files import whole_file
from lightning_vfe.workflows.build import build_trainer
from lightning_vfe.workflows.folders import free_folder, made_folder, only_command_in
from lightning_vfe.workflows.guards import breakdowns, default_dtype, disk_errors, kept_folder, key_errors, memory_bound
from lightning_vfe.workflows.parts import build_parts, load_content
from lightning_vfe.workflows.paths import check_folder
from lightning_vfe.workflows.plan import HANDOVER, Plan
from lightning_vfe.workflows.processes import check_launcher, is_first_process
from lightning_vfe.workflows.run_config import CONFIG_FILE, write_config
from lightning_vfe.workflows.schema import check_types
from lightning_vfe.workflows.tasks import Rows, Task, task_of

Say = Callable[[str], None]


@dataclass(frozen=True)
class RunResult:
    """How a run of `fit`, `validate` or `test` ended.

    Attributes:
        folder: the run folder.
        signal: number of the signal that stopped it; 0 where none did.
        messages: tables and lines of the callbacks, as rich prints them.
        is_saved: whether the folder holds a checkpoint to resume or to measure.
        tables: where the tables of `test` are, if not in the run folder itself.
        is_converged: whether sampling and training are known to be good; None where nobody looked.
    """

    folder: Path
    signal: int
    messages: tuple[Any, ...]
    is_saved: bool
    tables: Path | None = None
    is_converged: bool | None = None

    @property
    def results(self) -> pd.DataFrame:
        """What `test` found: quantity, value, error and unit of each term."""
        return results_table(RunFolder(self.tables or self.folder))


def silent(*_: object) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Observer:
    """Who listens to a run; by default nobody.

    Attributes:
        say: called with a line during the run.
        begin: called with the rows of the banner before the first step.
        progress: show the progress bars of the config.
    """

    say: Say = silent
    begin: Callable[[Plan, Rows], None] = silent
    progress: bool = False


def run(plan: Plan, observer: Observer | None = None) -> RunResult:
    """Run the planned verb.

    Raises:
        CommandError: a value that a constructor refuses, a checkpoint that does not fit, or walkers that do not divide.
        FloatingPointError: the numbers of the run are not finite.
        RunError: the disk is full, or another process of the run has died.
    """
    observer = observer or Observer()
    config, is_first, task = plan.config, is_first_process(), task_of(plan.config)
    if is_first:
        check_folder("run_dir", plan.run_dir)
        _check_files(plan)
    check_types(config)
    if plan.verb == "fit":
        _check_limits(config)
        if is_first and (folder := OmegaConf.select(config, "callbacks.checkpoint.dirpath")) is not None:
            check_folder("callbacks.checkpoint.dirpath", folder)
    claimed = _claimed(plan) if is_first else nullcontext(plan)
    is_writer = is_first and plan.verb == "fit"
    with (
        claimed as plan,
        only_command_in(plan.run_dir) if is_writer else nullcontext(),
        disk_errors(lambda: _way_back(plan)),
    ):
        try:
            with breakdowns():
                return _run(plan, observer, task, is_first)
        except FloatingPointError as error:
            if plan.verb != "fit":
                raise
            raise FloatingPointError(f"{error}, {_way_back(plan)}") from error


def _run(plan: Plan, observer: Observer, task: Task, is_first: bool) -> RunResult:
    """Everything that takes time, in the run's own folder."""
    config = plan.config
    note = task.prepare(config, plan.may_round_walkers)
    for line in (*plan.notes, *([note] if note else [])) if is_first else ():
        observer.say(line)
    # these imports take seconds
    from lightning_vfe.physics.chunking import keep_freed_memory
    from lightning_vfe.training.run.launch import configure_logging_and_seed, launch

    keep_freed_memory()
    content = load_content(plan)
    configure_logging_and_seed(config.seed)
    with default_dtype(config.dtype), key_errors(config), memory_bound(config):
        module, datamodule = build_parts(plan, task, content, observer.say if is_first else silent)
        trainer = build_trainer(config, plan.verb, observer.say, observer.progress, plan.command)
        check_launcher(trainer.world_size)
        task.check(config, module, datamodule, trainer)
        with _prepared_folder(plan) if is_first else nullcontext():
            if is_first:
                rows = task.describe(plan.verb, module, datamodule, trainer.world_size)
                observer.begin(plan, [*rows, ("processes", _processes(trainer))])
            with _handed_over(plan), kept_folder(plan.run_dir) if plan.verb == "fit" else nullcontext():
                stopped_by = launch(trainer, plan.verb, module, datamodule, plan.config.ckpt_path)
    is_saved = (plan.run_dir / "checkpoints" / "last.ckpt").is_file()
    tables = tables_folder(plan.run_dir, str(OmegaConf.select(config, "sampler.proton_sampling")))
    is_converged = getattr(getattr(module, "result", None), "is_converged", None)
    return RunResult(plan.run_dir, stopped_by, _messages(trainer), is_saved, tables, is_converged)


@contextmanager
def _claimed(plan: Plan) -> Iterator[Plan]:
    """The plan with a folder that no other command has: where one has taken the free folder meanwhile, the next one."""
    with ExitStack() as stack:
        while plan.is_free:
            try:
                stack.enter_context(made_folder(plan.run_dir))
                break
            except FileExistsError:
                folder, notes = free_folder(plan.config.name)
                plan.config.run_dir = str(folder)
                plan = replace(plan, run_dir=folder, notes=notes)
        yield plan


def _way_back(plan: Plan) -> str:
    """What to do after a breakdown of the run."""
    if plan.verb != "fit":
        return f"then run lightning-vfe {plan.verb} again"
    if (plan.run_dir / "checkpoints" / "last.ckpt").is_file():
        return f"then resume with lightning-vfe fit ckpt_path=last run_dir={plan.run_dir}"
    return "then start again: nothing was saved"


def rehearse(config: DictConfig, may_round: bool, with_trainer: bool) -> None:
    """Build and look over all that a new run would, and write nothing.

    Args:
        config: the composed config.
        may_round: the number of proton walkers is a default.
        with_trainer: build Lightning's Trainer, too, for a run on this machine.

    Raises:
        CommandError: a value that cannot be used.
    """
    check_types(config)
    _check_limits(config)
    task = task_of(config)
    task.prepare(config, may_round)
    from lightning_vfe.training.run.launch import configure_logging

    configure_logging()
    with default_dtype(config.dtype), key_errors(config), memory_bound(config):
        module, datamodule = task.build(config)
        if with_trainer:
            task.check(config, module, datamodule, build_trainer(config, "test", silent, progress=False))


def _messages(trainer: Any) -> tuple[Any, ...]:
    from lightning_vfe.training.run.messages import Reporter

    return tuple(
        message for callback in trainer.callbacks if isinstance(callback, Reporter) for message in callback.messages
    )


def _processes(trainer: Any) -> str:
    nodes = f" on {trainer.num_nodes} nodes" if trainer.num_nodes > 1 else ""
    return f"{trainer.world_size} ({trainer.strategy.root_device.type}){nodes}"


def _check_limits(config: DictConfig) -> None:
    for key in ("max_steps", "max_epochs"):
        limit = config.trainer.get(key)
        if limit is not None and limit != -1 and limit < 1:
            raise SettingError(f"trainer.{key}", limit, "must be at least 1, or -1 for no limit")
    every = config.trainer.get("log_every_n_steps")
    if every is not None and every < 1:
        raise SettingError("trainer.log_every_n_steps", every, "must be at least 1", "1 keeps each step")


def _check_files(plan: Plan) -> None:
    """Look at the files of a run that is resumed in its folder."""
    try:
        if not plan.is_new:
            check_files(plan.run_dir, measures=plan.verb == "test")
    except ValueError as error:
        raise CommandError(one_line(error)) from error


@contextmanager
def _prepared_folder(plan: Plan) -> Iterator[None]:
    """Make the run folder and write config.yaml; a command that is refused before it has results leaves no trace."""
    existed = plan.run_dir.is_dir()
    if plan.is_new:
        plan.run_dir.mkdir(parents=True, exist_ok=True)
        if any(plan.run_dir.iterdir()):
            raise SettingError("run_dir", plan.run_dir, "was taken by another command meanwhile", "run this one again")
    file, checkpoint = plan.run_dir / CONFIG_FILE, plan.run_dir / "checkpoints" / "last.ckpt"
    before = file.read_bytes() if file.is_file() else None
    saved = checkpoint.stat() if checkpoint.is_file() else None
    is_missing = plan.verb == "test" and before is None
    if plan.is_new or plan.verb == "fit" or is_missing:
        write_config(plan.run_dir, plan.config)
    try:
        yield
    except CommandError:
        if (checkpoint.stat() if checkpoint.is_file() else None) != saved:
            raise
        with suppress(OSError):
            if before is not None:
                with whole_file(file, "wb") as stream:
                    stream.write(before)
            elif plan.is_new and not (plan.run_dir / "metrics.csv").is_file():
                for path in plan.run_dir.iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                if not existed:
                    plan.run_dir.rmdir()
        raise


@contextmanager
def _handed_over(plan: Plan) -> Iterator[None]:
    """Lightning starts further processes with the same command line; they take the plan from the environment."""
    before = os.environ.get(HANDOVER)  # a further process has received it, and stays one
    os.environ[HANDOVER] = plan.hand_over()
    try:
        yield
    finally:
        if before is None:
            del os.environ[HANDOVER]
        else:
            os.environ[HANDOVER] = before
