"""Commands in processes of their own, without the seconds that each would take to import everything."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tests.helpers.ranks import PRELOAD

LIMIT_SECONDS = 300


@dataclass(frozen=True)
class Command:
    """A running command and what it prints."""

    process: Any
    out: Path
    err: Path

    def wait(self) -> tuple[int, str, str]:
        """Exit code, stdout and stderr."""
        self.process.join(LIMIT_SECONDS)
        self.process.kill()
        text = self.out.read_text() if self.out.is_file() else ""
        return self.process.exitcode, text, self.err.read_text()

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that the command does."""
        began = time.monotonic()
        while not condition():
            assert self.process.is_alive(), self.wait()
            assert time.monotonic() - began < LIMIT_SECONDS
            time.sleep(0.02)

    def signal(self, *numbers: int) -> float:
        """Send signals with a moment in between; the time of the last one."""
        for number in numbers:
            os.kill(self.process.pid, number)
            time.sleep(0.05)
        return time.monotonic()


def start(
    words: Sequence[str],
    folder: Path,
    out: Path | None = None,
    largest_file: int | None = None,
    environment: dict[str, str] | None = None,
) -> Command:
    """Run `lightning-vfe WORDS` in a folder.

    Args:
        words: of the command.
        folder: working directory; stdout and stderr go into files there.
        out: a named pipe for stdout in place of the file.
        largest_file: bytes beyond which no file can grow, like on a full disk.
        environment: more variables.
    """
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOAD, "lightning_vfe.cli.label", "lightning_vfe.cli.log_z"])
    number = len(list(folder.glob("err-*")))
    files = out or folder / f"out-{number}.txt", folder / f"err-{number}.txt"
    files[1].touch()
    process = context.Process(target=_run, args=(list(words), folder, *files, largest_file, environment or {}))
    process.start()
    return Command(process, *files)


def num_rows(run: Path) -> int:
    """Rows of metrics.csv."""
    return len(pd.read_csv(run / "metrics.csv")) if (run / "metrics.csv").is_file() else 0


def _run(words: list[str], folder: Path, out: Path, err: Path, limit: int | None, environment: dict[str, str]) -> None:
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(folder)
    os.environ.update(environment)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which `nohup pytest` ignores, and every process below it
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    from lightning_vfe.cli import main

    sys.exit(main(words))
