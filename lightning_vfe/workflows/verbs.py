"""The verbs of the command line as functions: they take the same settings, print nothing and return results.

import lightning_vfe as lv
lv.fit("experiment=n2_exact", "system.rs=2.1", run_dir="runs/a")
lv.test(run_dir="runs/a").results
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from omegaconf import DictConfig

from lightning_vfe.analysis.run import latest_run
from lightning_vfe.errors import SettingError, one_line
from lightning_vfe.progress import Begin, Progress
from lightning_vfe.workflows.checkpoints import checkpoint_of
from lightning_vfe.workflows.compose import compose_config
from lightning_vfe.workflows.effects import check_effects
from lightning_vfe.workflows.folders import only_command_in, only_command_on
from lightning_vfe.workflows.guards import all_guards, breakdowns, disk_errors, instantiate, key_errors
from lightning_vfe.workflows.label import LabelResult, label_with
from lightning_vfe.workflows.load import load
from lightning_vfe.workflows.log_z import LogZRun, log_z_with
from lightning_vfe.workflows.log_z_states import LogZStates, log_z_states_with
from lightning_vfe.workflows.overrides import parse, with_runs
from lightning_vfe.workflows.paths import check_folder
from lightning_vfe.workflows.plan import Plan, make_plan
from lightning_vfe.workflows.run import Observer, RunResult, run, silent
from lightning_vfe.workflows.sample import SampleSettings
from lightning_vfe.workflows.samples import Samples
from lightning_vfe.workflows.schema import check_types
from lightning_vfe.workflows.system import strata_of

PathLike = str | Path | None
NEED_NO_FOLDER = ("eos",)
"""Verbs that write into the folder of a run where no other is given."""


def fit(
    *settings: str, run_dir: PathLike = None, ckpt_path: PathLike = None, observer: Observer | None = None
) -> RunResult:
    """Train what the settings name, or resume a run.

    Args:
        settings: as on the command line, such as "experiment=n2_exact" or "trainer.max_steps=50".
        run_dir: the run folder; None takes runs/NAME, or the next free runs/NAME-2, ...
        ckpt_path: checkpoint to resume: a file, "last" of run_dir, or "auto" to resume if run_dir has one.
        observer: is called during the run.

    Raises:
        CommandError: a setting or a checkpoint that cannot be used.
        FloatingPointError: the numbers of the run are not finite.
    """
    return _run("fit", settings, run_dir, ckpt_path, observer)


def validate(
    *settings: str, run_dir: PathLike = None, ckpt_path: PathLike = None, observer: Observer | None = None
) -> RunResult:
    """Measure briefly with frozen networks; arguments as of `fit`, with the last checkpoint by default."""
    return _run("validate", settings, run_dir, ckpt_path, observer)


def test(
    *settings: str, run_dir: PathLike = None, ckpt_path: PathLike = None, observer: Observer | None = None
) -> RunResult:
    """Freeze the networks, equilibrate again and measure; arguments as of `fit`, with the last checkpoint by default.

    The results are in summary.json of the run folder, and in `RunResult.results`.
    """
    return _run("test", settings, run_dir, ckpt_path, observer)


def label(
    *settings: str,
    run_dir: PathLike = None,
    say: Callable[[str], None] = silent,
    progress: Progress = silent,
    begin: Begin = silent,
) -> LabelResult:
    """Sample configurations and label them by a calculator.

    Args:
        settings: as of `lightning-vfe label`.
        run_dir: folder of the database; None takes runs/label.
        say: called with a line for each part of the work.
        progress: called with the name of the work, the number of finished parts, and the number of all parts.
        begin: called once before the work begins, with the config and a description of the work.

    Raises:
        CommandError: a setting that cannot be used.
    """
    config = compose_verb("label", settings, run_dir)
    database = config.label.database
    if database is None:
        alone: AbstractContextManager[None] = only_command_in(Path(config.run_dir))
    else:
        alone = only_command_on(Path(database), "label.database") if Path(database).is_file() else nullcontext()
    with all_guards(config, _same_command), alone:
        return label_with(config, _command("label", settings), say, progress, begin)


def compute_log_z(
    *settings: str, run_dir: PathLike = None, progress: Progress = silent, begin: Begin = silent
) -> LogZRun | LogZStates:
    """Compute ln Z of a stored potential and store it beside the potential; several state points are one MBAR problem.

    Args:
        settings: as of `lightning-vfe log-z`.
        run_dir: folder of the tables and figures; None takes runs/log_z.
        progress: called while the chains run.
        begin: called once before the work begins, with the config and a description of the work.

    Raises:
        CommandError: a setting that cannot be used.
    """
    config = compose_verb("log-z", settings, run_dir)
    with all_guards(config, _same_command), only_command_in(Path(config.run_dir)):
        several = strata_of(config).num_states > 1
        return (log_z_states_with if several else log_z_with)(config, _command("log-z", settings), progress, begin)


def sample(
    *settings: str,
    run_dir: PathLike = None,
    ckpt_path: PathLike = None,
    progress: Progress = silent,
    begin: Begin = silent,
) -> Samples:
    """Draw independent proton configurations of a trained run, and write them into RUN/samples.

    Args:
        settings: as of `lightning-vfe sample`.
        run_dir: the run folder; None takes the run that trained last.
        ckpt_path: checkpoint; None takes the last one.
        progress: called while the chains run.
        begin: called once before the work begins, with the config and a description of the work.

    Raises:
        CommandError: a setting that cannot be used, or a run without p(x).
    """
    overrides = parse(_words(settings, run_dir=run_dir, ckpt_path=ckpt_path))
    config = compose_config(overrides, root="sample")
    check_types(config)
    if config.run_dir is None:
        try:
            config.run_dir = str(latest_run())
        except FileNotFoundError as error:
            raise SettingError("run_dir", None, f"names no run: {one_line(error)}", "give run_dir=FOLDER") from error
    home = Path(config.run_dir)
    check_folder("run_dir", home)
    if config.ckpt_path is None and not checkpoint_of(home).is_file():
        reason = "holds no checkpoints/last.ckpt" if home.exists() else "does not exist"
        raise SettingError("run_dir", home, reason, "give the folder of a run made by fit")
    with breakdowns(), key_errors(config), disk_errors(_same_command):
        chosen: SampleSettings = instantiate(config.sample)
        try:
            run = load(home, config.ckpt_path)
        except SettingError as error:
            if error.key != "run":
                raise
            raise error.at("run_dir" if config.ckpt_path is None else "ckpt_path") from error
        begin(config, {"checkpoint": config.ckpt_path or "the last one", **chosen.description(run.state)})
        found = run.sample(progress=progress, **asdict(chosen))
        provenance = {"command": _command("sample", settings), "date": datetime.now(UTC).date().isoformat()}
        found = replace(found, provenance=provenance | found.provenance)
        return replace(found, file=found.write(home / "samples"))


def compose_verb(verb: str, settings: tuple[str, ...], run_dir: PathLike = None) -> DictConfig:
    """The checked config of a verb that is no stage of Lightning's Trainer."""
    overrides = parse(_words(with_runs(verb, settings), run_dir=run_dir))
    config = compose_config(overrides, root=verb)
    check_effects(verb, config, overrides)
    if config.run_dir is not None or verb not in NEED_NO_FOLDER:
        check_folder("run_dir", config.run_dir)
    check_types(config)
    return config


def _run(
    verb: str, settings: tuple[str, ...], run_dir: PathLike, ckpt_path: PathLike, observer: Observer | None
) -> RunResult:
    words = _words(settings, run_dir=run_dir, ckpt_path=ckpt_path)
    return run(Plan.received() or make_plan(verb, parse(words)), observer)


def _same_command() -> str:
    return "then run the same command again"


def _words(settings: Sequence[str], **paths: PathLike) -> list[str]:
    return [*settings, *(f"{key}={path}" for key, path in paths.items() if path is not None)]


def _command(verb: str, settings: tuple[str, ...]) -> str:
    return shlex.join(["lightning-vfe", verb, *settings])
