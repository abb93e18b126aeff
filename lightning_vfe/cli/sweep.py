"""`--multirun`: one command for several values of some keys, through Hydra's sweepers and launchers."""

from __future__ import annotations

import itertools
import shlex
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig

from lightning_vfe.cli.exit_codes import FAILED, STOPPED
from lightning_vfe.cli.sweep_table import print_results
from lightning_vfe.errors import CommandError, SettingError, one_line
from lightning_vfe.resources import resource_folder, user_path
from lightning_vfe.signals import STOPPING, Stopped, signal_of, signals_to, stop
from lightning_vfe.workflows.compose import RUN_ROOT, compose_config
from lightning_vfe.workflows.effects import check_effects
from lightning_vfe.workflows.folders import RUNS, new_sweep_folder, past_sweep_folder, taken_sweep_folder
from lightning_vfe.workflows.overrides import parse, quote, quote_path
from lightning_vfe.workflows.paths import check_folder
from lightning_vfe.workflows.run import rehearse
from lightning_vfe.workflows.schema import check_types

SWEEP_FILE = "multirun.yaml"
"""What Hydra writes into the folder of a sweep."""


@dataclass(frozen=True)
class Words:
    """The words of a sweep.

    Attributes:
        fixed: settings of all jobs.
        swept: by key, a word for each of its values.
        hydra: for Hydra's launcher or sweeper.
        run_dir: folder of the sweep, or None.
    """

    fixed: tuple[str, ...]
    swept: dict[str, list[str]]
    hydra: tuple[str, ...]
    run_dir: str | None

    @property
    def jobs(self) -> list[list[str]]:
        """The settings of every job, in the order of Hydra's own sweeper."""
        return [[*self.fixed, *chosen] for chosen in itertools.product(*self.swept.values())]

    def values(self, job: Sequence[str]) -> dict[str, str]:
        """The swept keys and what they are in a job."""
        pairs = [word.partition("=")[::2] for word in job]
        return {key: value for key, value in pairs if key in self.swept}


@dataclass(frozen=True)
class Job:
    """What a launcher runs for each job, here or on a cluster: the command without `--multirun`, in a new process.

    In a process of its own a run may start further processes, and leaves nothing behind for the next one.
    """

    verb: str

    def __call__(self, config: DictConfig) -> dict[str, Any]:
        """Run the command in the job's folder; returns the folder, the job's settings and the exit code."""
        del config  # the process composes it again, from the words
        hydra = HydraConfig.get()
        words, folder = list(hydra.overrides.task), Path(hydra.runtime.output_dir)
        print(f"job {hydra.job.num}: {self.verb} {' '.join(words)}", flush=True)
        # a cluster may start a job more than once
        start = ["ckpt_path=auto"] if self.verb == "fit" else []
        command = [sys.executable, "-m", "lightning_vfe", self.verb, *words, *start, f"run_dir={folder}"]
        code = run_process(command)
        if not any(folder.iterdir()):
            folder.rmdir()
        if code - STOPPED in STOPPING:
            raise Stopped(code - STOPPED)
        return {"folder": str(folder), "words": words, "exit_code": code}


def run_process(command: Sequence[str]) -> int:
    """Exit code of a process that ends before this one does: Ctrl-C reaches both, other signals are passed on."""
    # submitit has handlers of its own
    passes_on = signal.getsignal(signal.SIGTERM) in (signal.SIG_DFL, stop)
    with signals_to(stop) if passes_on else nullcontext():
        process = subprocess.Popen(command)
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt as error:  # the process saves and stops
                if signal_of(error) != signal.SIGINT:
                    process.send_signal(signal_of(error))


def run_sweep(verb: str, given: Sequence[str]) -> int:
    """Run a verb of the Trainer once for every combination of the values; returns the exit code.

    Raises:
        CommandError: no key with several values, a combination that does not compose, or a folder that is no sweep's.
    """
    words = split_words(given)
    configs = []
    for job in words.jobs:
        overrides = parse(job)
        config = compose_config(overrides)
        config.run_dir = words.run_dir or str(RUNS)  # each job gets its own
        check_effects(verb, config, overrides)
        check_types(config)
        configs.append((config, overrides.value("sampler.num_proton_walkers") is None))
    name = configs[-1][0].name
    home = Path(words.run_dir) if words.run_dir else None
    if home is None:
        home = new_sweep_folder(name) if verb == "fit" else past_sweep_folder(name, SWEEP_FILE)
    elif home.is_dir() and any(home.iterdir()) and not (home / SWEEP_FILE).is_file():
        raise SettingError("run_dir", home, "is not the folder of a sweep", "give another folder")
    check_folder("run_dir", home)
    for config, may_round in configs:
        # a launcher may start the jobs on other machines
        rehearse(config, may_round, with_trainer=not words.hydra)
    is_free = verb == "fit" and words.run_dir is None
    with taken_sweep_folder(name) if is_free else nullcontext(home) as home:
        print(f"{len(words.jobs)} jobs of {verb} in {home}", flush=True)
        results = _multirun(verb, words, home)
    if verb == "test":
        good = [result for result in results if result["exit_code"] == 0]
        print_results(home, {Path(result["folder"]): words.values(result["words"]) for result in good})
    failed = [Path(result["folder"]).name for result in results if result["exit_code"]]
    if failed:
        print(f"error: {len(failed)} of {len(results)} jobs failed: {', '.join(failed)}", file=sys.stderr)
    elif verb == "fit":
        own = shlex.join([*given, *([] if words.run_dir else [f"run_dir={home}"])])
        print(f"next: lightning-vfe test --multirun {own}")
    return FAILED if failed else 0


def split_words(given: Sequence[str]) -> Words:
    """Sort the words; those of Hydra are left to it."""
    hydra = tuple(word for word in given if word.lstrip("+~").startswith(("hydra.", "hydra/")))
    parser, fixed, swept = OverridesParser.create(), [], {}
    run_dir: str | None = None
    for word in (word for word in given if word not in hydra):
        key, value = word.lstrip("+").partition("=")[::2]
        if key == "run_dir":
            parse([word])
            run_dir = str(user_path(value.strip("'\"")))
            continue
        if key == "ckpt_path":
            raise SettingError("ckpt_path", value, "is chosen by --multirun for each job", "drop it")
        try:
            override = parser.parse_override(word)
            several = override.is_sweep_override() and override.is_discrete_sweep()
        except HydraException:
            several = False  # parse() says what is wrong, or quotes a path
        if several:
            values = list(override.sweep_string_iterator())
            twice = [each for each, count in Counter(values).items() if count > 1]
            if twice:
                reason = f"has {key}={twice[0]} twice"
                raise SettingError(key, value, reason, "jobs need folders and values of their own")
            swept[key] = [f"{key}={each}" for each in values]
        else:
            parse([word])
            fixed.append(quote_path(word))
    if not swept:
        raise CommandError("--multirun needs a key with several values, such as system.rs=1.2,1.4")
    return Words(tuple(fixed), swept, hydra, run_dir)


def _multirun(verb: str, words: Words, home: Path) -> list[dict[str, Any]]:
    """Let Hydra launch the jobs; what each of them returned."""
    # each job's folder is named after its values
    fixed_keys = sorted({word.lstrip("+~").partition("=")[0] for word in words.fixed})
    dirname = "hydra.job.config.override_dirname"
    settings = [f"hydra.sweep.dir={quote(str(home))}", "hydra.sweep.subdir=${hydra.job.override_dirname}"]
    settings += [f"{dirname}.kv_sep='-'", f"{dirname}.item_sep='_'", f"{dirname}.exclude_keys={fixed_keys}"]
    settings += ["hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none"]
    values = [f"{key}={','.join(word.partition('=')[2] for word in chosen)}" for key, chosen in words.swept.items()]
    configs = str(resource_folder("configs"))
    try:
        with initialize_config_dir(version_base="1.3", config_dir=configs, job_name="lightning-vfe"):
            batches = GlobalHydra.instance().hydra.multirun(  # type: ignore[union-attr]
                config_name=RUN_ROOT,
                task_function=Job(verb),
                overrides=[*words.fixed, *values, *settings, *words.hydra],
            )
    except HydraException as error:
        missing = "submitit" in str(error) and "Could not find" in str(error)
        advice = "; pip install hydra-submitit-launcher brings it" if missing else ""
        raise CommandError(f"cannot launch the jobs: {one_line(error)[:200]}{advice}") from error
    return [job.return_value for batch in batches for job in batch]
