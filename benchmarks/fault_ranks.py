"""A dead process of a run with two of them, for `faults.py`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fault_commands import FIT, Outcome
from kill_and_resume import num_rows, saved_step

TWO = ("trainer.devices=2", "trainer.strategy=ddp", "run_dir=run", "ckpt_path=auto")
LIMIT_SECONDS = 240


def dead_ranks(campaign: Any) -> None:
    """Kill the first or the second process: the other must end soon, in one line, and the run must resume."""
    for rank, name in enumerate(("first", "second")):
        row, home = campaign.row(f"`kill -9` of the {name} of two processes of fit"), campaign.folder / f"rank{rank}"
        home.mkdir()
        outcome = _killed(home, rank, campaign.rng.randint(1, 10))
        # the first process is the one that speaks; without it the shell says `Killed`
        is_right = outcome.code == -signal.SIGKILL if rank == 0 else outcome.is_clean and outcome.code == 1
        wrong = "" if is_right else f"unclean: {outcome}"
        goal = saved_step(home / "run") + 3
        again = _start(home, goal)
        try:
            code = again.wait(LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(again.pid, signal.SIGKILL)
            code = again.wait()
        if code != 0 or num_rows(home / "run") != goal:
            wrong = f"does not go on: exit code {code}, {(home / 'stderr.txt').read_text()}"
        row.add(outcome, wrong, "steps since the last save")
        campaign.finish(row)


def _start(home: Path, steps: int) -> subprocess.Popen[bytes]:
    words = [*FIT, *TWO, f"trainer.max_steps={steps}"]
    with (home / "stdout.txt").open("w") as out, (home / "stderr.txt").open("w") as err:
        command = [sys.executable, "-m", "lightning_vfe", *words]
        return subprocess.Popen(command, cwd=home, stdout=out, stderr=err, start_new_session=True)


def _killed(home: Path, rank: int, rows: int) -> Outcome:
    """Kill a process of a long run after some rows; how the first one ended, and all of them."""
    first, began = _start(home, 100_000), time.monotonic()
    while num_rows(home / "run") < rows and first.poll() is None and time.monotonic() - began < LIMIT_SECONDS:
        time.sleep(0.05)
    members = _members(first.pid)
    os.kill(first.pid if rank == 0 else next(pid for pid in members if pid != first.pid), signal.SIGKILL)
    code: int | None = None
    while time.monotonic() - began < 2 * LIMIT_SECONDS:
        code = first.poll()
        if code is not None and not _members(first.pid):
            break
        time.sleep(0.1)
    else:
        code = None
        os.killpg(first.pid, signal.SIGKILL)
    texts = [(home / name).read_text() for name in ("stdout.txt", "stderr.txt")]
    return Outcome(code, *texts, time.monotonic() - began)


def _members(group: int) -> list[int]:
    """Living processes of a group that have not ended yet."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(folder.name))
    return found
