"""Decide what a command runs: with which config, in which run folder, from which checkpoint."""

import json
import os
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from lightning_vfe import __version__
from lightning_vfe.errors import SettingError
from lightning_vfe.workflows.compose import companions, compose_config
from lightning_vfe.workflows.effects import check_effects
from lightning_vfe.workflows.folders import RUNS, free_folder, is_used, numbered
from lightning_vfe.workflows.keys import followed, walk
from lightning_vfe.workflows.overrides import Overrides, is_path_key
from lightning_vfe.workflows.paths import check_folder
from lightning_vfe.workflows.processes import is_first_process, started_together
from lightning_vfe.workflows.resumed_config import config_of_checkpoint

HANDOVER = "LIGHTNING_VFE_PLAN"
"""Environment variable by which the first process tells those that Lightning starts what it has decided."""


OUTPUT_PATHS = ("run_dir", "ckpt_path")
"""Keys of paths that are decided here."""
INPUT_FOLDERS = ("init_from",)
"""Keys of files that a run reads, which may also be run folders."""


@dataclass(frozen=True)
class Plan:
    """One command, decided.

    Attributes:
        verb: fit, validate or test.
        config: the composed config; run_dir and ckpt_path in it are those below.
        run_dir: folder that the command writes into.
        ckpt_path: checkpoint to start from, or None.
        is_new: the folder is yet to be made.
        notes: lines that tell the user what was chosen.
        may_be_done: a checkpoint at the last step is no mistake, as for a job that its cluster starts once more.
        may_round_walkers: the number of proton walkers is a default, which may be raised to one that can be dealt.
        is_free: the folder is the next free one; another command may take it first.
        command: what the user has called.
    """

    verb: str
    config: DictConfig
    run_dir: Path
    ckpt_path: Path | None
    is_new: bool
    notes: tuple[str, ...] = ()
    may_be_done: bool = False
    may_round_walkers: bool = False
    is_free: bool = False
    command: str = ""

    def hand_over(self) -> str:
        """The plan as text for HANDOVER."""
        text = OmegaConf.to_yaml(self.config)
        return json.dumps([self.verb, text, str(self.run_dir), self.ckpt_path and str(self.ckpt_path)])

    @property
    def has_one_process(self) -> bool:
        """Whether the trainer asks for a single process; false where Lightning chooses the number."""
        trainer = self.config.trainer
        return str(trainer.get("devices")) == "1" and trainer.get("num_nodes", 1) == 1

    @staticmethod
    def received() -> "Plan | None":
        """The first process's plan, in a process that Lightning started; None elsewhere."""
        if HANDOVER not in os.environ or os.environ.get("LOCAL_RANK", "0") == "0":
            return None
        verb, text, run_dir, ckpt_path = json.loads(os.environ[HANDOVER])
        config = OmegaConf.create(text)
        assert isinstance(config, DictConfig)
        return Plan(verb, config, Path(run_dir), Path(ckpt_path) if ckpt_path else None, is_new=False, may_be_done=True)


def make_plan(verb: str, overrides: Overrides) -> Plan:
    """Plan a command, see `_decide`."""
    return replace(_decide(verb, overrides), command=shlex.join(["lightning-vfe", verb, *overrides.words]))


def _decide(verb: str, overrides: Overrides) -> Plan:
    """Which config, folder and checkpoint a command takes.

    `fit` without a checkpoint gets a new folder, `runs/NAME` or the next free `runs/NAME-2`, ...; with one it
    resumes in that checkpoint's folder. With `ckpt_path=auto` it does what a job that may be started again needs: it
    resumes the run in run_dir if there is a checkpoint, and begins there otherwise. `validate` and `test` use the last
    checkpoint where none is given. A checkpoint's run brings its config along; groups chosen on the command line take
    the place of its own, single keys come last.

    Raises:
        CommandError: bad override, no such run or checkpoint, or a folder that already holds a run.
    """
    ckpt_path, run_dir = overrides.value("ckpt_path"), overrides.value("run_dir")
    if run_dir and is_first_process():
        check_folder("run_dir", run_dir)
    if verb != "fit":
        ckpt_path = ckpt_path or "last"
    begins_again = False
    is_auto = ckpt_path == "auto"
    if is_auto:
        if not run_dir:
            raise SettingError("ckpt_path", "auto", "needs run_dir=..., the folder to resume or to begin in")
        begins_again = verb == "fit" and not _last_of(Path(run_dir)).is_file()
        ckpt_path = None if begins_again else "last"
    if ckpt_path is None:
        config = compose_config(overrides)
        check_effects(verb, config, overrides)
        if not run_dir and (started_together() or config.trainer.num_nodes > 1):
            raise SettingError(
                "run_dir",
                None,
                "leaves the folder open",
                "processes started by torchrun or srun, or on several nodes, need run_dir=...",
            )
        folder, notes = (Path(run_dir), ()) if run_dir else free_folder(config.name)
        protons = overrides.value("system.protons")
        notes += tuple(f"{group}={name}, for system.protons={protons}" for group, name in companions(overrides).items())
        is_new = not (begins_again and (folder / "config.yaml").is_file())  # left by a run that was stopped early
        if is_new and run_dir and is_first_process() and is_used(folder):
            raise SettingError(
                "run_dir", folder, "already holds a run", "resume it with ckpt_path=last, or give another folder"
            )
        is_default = overrides.value("sampler.num_proton_walkers") is None
        plan = _plan(verb, config, folder, None, is_new, notes)
        return replace(plan, may_round_walkers=is_default, is_free=not run_dir)
    if ckpt_path == "last":
        checkpoint, notes = _last_checkpoint(run_dir, overrides)
    else:
        checkpoint, notes = Path(str(ckpt_path)), ()
    home = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else None
    config = config_of_checkpoint(checkpoint, home, overrides)
    check_effects(verb, config, overrides)
    goal = Path(run_dir) if run_dir else home
    if goal is not None:
        folder, is_new = goal, not is_used(goal)
    else:
        (folder, more), is_new = free_folder(config.name), True
        notes += more
    plan = _plan(verb, config, folder, checkpoint, is_new, notes)
    return replace(plan, may_be_done=is_auto, is_free=goal is None)


def _plan(
    verb: str, config: DictConfig, folder: Path, checkpoint: Path | None, is_new: bool, notes: tuple[str, ...]
) -> Plan:
    for key, value in walk(OmegaConf.to_container(config, resolve=False)):
        is_input = is_path_key(key) and key not in OUTPUT_PATHS and isinstance(value, str) and followed(value) is None
        if is_input and (Path(value).is_file() or (key in INPUT_FOLDERS and Path(value).exists())):
            # the run may be looked at from another working directory
            OmegaConf.update(config, key, str(Path(value).resolve()))
    config.version, config.run_dir = __version__, str(folder)
    config.ckpt_path = None if checkpoint is None else str(checkpoint)
    return Plan(verb, config, folder, checkpoint, is_new, notes)


def _last_of(run_dir: Path) -> Path:
    return run_dir / "checkpoints" / "last.ckpt"


def _last_checkpoint(run_dir: str | None, overrides: Overrides) -> tuple[Path, tuple[str, ...]]:
    """checkpoints/last.ckpt of the given run folder, else of the latest run of the experiment's name that has one."""
    if run_dir:
        checkpoint = _last_of(Path(run_dir))
        if not checkpoint.is_file():
            raise SettingError(
                "run_dir", run_dir, "holds no checkpoints/last.ckpt", "give the folder of a run made by fit"
            )
        return checkpoint, ()
    name = overrides.value("name") or overrides.groups.get("experiment") or "default"
    folders = [folder for _, folder in numbered(str(name))]
    for folder in reversed(folders):
        checkpoint = _last_of(folder)
        if checkpoint.is_file():
            return checkpoint, (f"using the last checkpoint of {folder}",)
    choice = overrides.groups.get("experiment")
    command = "lightning-vfe fit" + (f" experiment={choice}" if choice else "")
    raise SettingError(
        "ckpt_path", "last", f"finds no checkpoint in {RUNS / str(name)}", f"run '{command}' first, or give run_dir=..."
    )
