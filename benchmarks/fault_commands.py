"""Commands of lightning-vfe for `faults.py`: started, disturbed, and looked at when they have ended."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from kill_and_resume import same

PRELOAD = (
    "lightning_vfe.cli.run",
    "lightning_vfe.cli.label",
    "lightning_vfe.cli.log_z",
    "lightning_vfe.cli.report",
    "lightning_vfe.training.variational.module",
    "lightning_vfe.training.variational.callbacks",
    "lightning_vfe.training.potential.module",
    "lightning_vfe.training.potential.datamodule",
)
LIMIT_SECONDS = 300.0
MEMORY = 6 * 2**30
"""Bytes that a command may take: a huge number must not take the machine along."""

QUIET = ("trainer.accelerator=cpu", "logger=csv")
FIT = ("fit", "experiment=smoke", *QUIET, "trainer.max_steps=12", "callbacks.checkpoint.every_n_steps=3")
SHORT_LABEL = ("label.chains.equilibration_steps=20", "label.chains.spacing=10", "label.num_force_checks=1")
LENNARD_JONES = ("calculator=ase", "+calculator.sigma=0.5", "+calculator.epsilon=0.1", "+calculator.rc=1.2")
LABEL = ("label", *LENNARD_JONES, *SHORT_LABEL, "system.num_atoms=2", "label.num_configurations=12")
SHORT_LOG_Z = ("log_z.num_chains=4", "log_z.num_sweeps=40", "log_z.max_sweeps=60", "log_z.pilot_sweeps=10")
LOG_Z = ("log-z", "system.num_atoms=2", "device=cpu", "potential.path=pair.pt", "num_samples=10", *SHORT_LOG_Z)
LOG_Z = (*LOG_Z, "log_z.num_bootstraps=10", "log_z.target_error_per_atom=0.2")
VERBS = {
    "fit": (*FIT, "run_dir=run", "ckpt_path=auto"),
    "test": ("test", "run_dir=run", "datamodule.test_steps=60"),
    "log-z": (*LOG_Z, "run_dir=z"),
    "label": (*LABEL, "run_dir=labels"),
}
"""The commands that are disturbed; each one continues, or begins again, with the same words."""


OF_THE_COMMAND = ("provenance", "checksum")
"""Entries of summary.json that hold the date and the command."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        code: exit code; minus the number of the signal that killed it; None where it was still at work.
        out, err: what it printed.
        seconds: how long it took.
    """

    code: int | None
    out: str
    err: str
    seconds: float

    @property
    def line(self) -> str:
        """The last line that the user sees, stderr first; numbers of processes and times are left out."""
        lines = [line for line in (self.err.strip() or self.out.strip()).splitlines() if line.strip()]
        return re.sub(r"\s+", " ", lines[-1]).strip() if lines else ""

    @property
    def is_clean(self) -> bool:
        """No traceback, and after an error one line with a documented exit code."""
        if "Traceback" in self.err + self.out or self.code is None:
            return False
        if self.code in (1, 2) and self.err:
            return self.err.startswith("error: ") and self.err.count("\n") == 1
        return self.code in (0, 1) or self.code - 128 in (1, 2, 10, 12, 15)


def run(
    words: Sequence[str],
    folder: Path,
    disturb: Callable[[int], None] | None = None,
    largest_file: int | None = None,
    cpu_seconds: int | None = None,
    out: Path | None = None,
) -> Outcome:
    """Run `lightning-vfe WORDS` in a folder, in a process group of its own that is gone when this returns.

    Args:
        words: of the command.
        folder: working directory.
        disturb: called with the number of the process as soon as it runs.
        largest_file: bytes beyond which no file can grow.
        cpu_seconds: processor time after which the command is ended.
        out: a named pipe for stdout.
    """
    files = out or folder / "stdout.txt", folder / "stderr.txt"
    for file in (files[1], *(() if out else files[:1])):
        file.write_text("")
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_main, args=(list(words), folder, *files, largest_file, cpu_seconds))
    began = time.monotonic()
    process.start()
    assert process.pid is not None
    if disturb is not None:
        disturb(process.pid)
    process.join(LIMIT_SECONDS)
    code = process.exitcode
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()
    code = None if code == -signal.SIGXCPU else code
    text = "" if out else files[0].read_text(errors="replace")
    return Outcome(code, text, files[1].read_text(errors="replace"), time.monotonic() - began)


def _main(words: list[str], folder: Path, out: Path, err: Path, largest_file: int | None, cpu: int | None) -> None:
    os.setsid()
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(folder)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup ignores, and every process below it
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    if cpu is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 2))
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    from lightning_vfe.cli import main

    code = main(words)
    sys.stdout.flush()
    os._exit(code)  # what the parent has registered for its own end is not for this process


def prepare(folder: Path, verb: str) -> None:
    """Put into an empty folder what a verb needs before it can begin."""
    from lightning_vfe.models.potential.storage import save_potential
    from lightning_vfe.models.potential.yukawa import YukawaPotential

    folder.mkdir(parents=True)
    torch.set_default_dtype(torch.float64)
    metadata = {"rs_range": [1.2, 1.3], "temperature_kelvin": 6000.0, "label": {}}
    save_potential(YukawaPotential(screening_length=0.6), folder / "pair.pt", metadata)
    if verb == "test":
        done = run(VERBS["fit"], folder)
        assert done.code == 0, done.err


def result(folder: Path, verb: str) -> Any:
    """All numbers that a verb has found, for comparisons; None where it has none yet."""
    try:
        if verb == "fit":
            content = torch.load(folder / "run" / "checkpoints" / "last.ckpt", weights_only=True)
            parts = ("state_dict", "optimizer_states", "lr_schedulers", "walkers", "global_step")
            return {part: content[part] for part in parts} | {"rows": (folder / "run" / "metrics.csv").read_text()}
        if verb == "test":
            content = json.loads((folder / "run" / "summary.json").read_text())
            return {name: value for name, value in content.items() if name not in OF_THE_COMMAND}
        if verb == "log-z":
            (entry,) = json.loads((folder / "pair.log_z.json").read_text())["entries"]
            return entry["log_z"], entry["log_z_error"]
        from lightning_vfe.labels.database import LabelDatabase

        return sorted(LabelDatabase.open(folder / "labels" / "labels.db").arrays(2, 1.25)["energy"].tolist())
    except (FileNotFoundError, ValueError):
        return None


def equal(first: Any, second: Any) -> bool:
    """Bit for bit; labels of several processes come in any order."""
    return first is not None and same(first, second)


def moment(rng: random.Random, seconds: float) -> float:
    """A random time during a command that takes so many seconds undisturbed."""
    return rng.uniform(0.0, 0.9 * seconds)
