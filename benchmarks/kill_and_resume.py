"""Kill a run repeatedly with SIGKILL, at random moments, and compare what is left with a run that nobody touched.

    python benchmarks/kill_and_resume.py
    python benchmarks/kill_and_resume.py --rounds 3 --ranks 1 --keep /tmp/killed

Every round starts the same command, `lightning-vfe fit ... ckpt_path=auto`, and kills all its processes at once: while
they start, or some steps later. After each kill every checkpoint must load, and no more than the steps since the last
one may be lost. In the end parameters, optimizer, walkers, random numbers and metrics.csv must equal those of the
uninterrupted run bit for bit. Prints a line for each kill; the exit code is 1 where something is wrong.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

EVERY_N_STEPS = 3
STEPS_PER_ROUND = 6
LIMIT_SECONDS = 600


def command(run: Path, ranks: int, steps: int) -> list[str]:
    """A small run with epochs of five steps, which saves in the middle of them and at their end."""
    words = ["experiment=smoke", "logger=csv", f"run_dir={run}", "ckpt_path=auto", f"trainer.max_steps={steps}"]
    words += [f"callbacks.checkpoint.every_n_steps={EVERY_N_STEPS}", "datamodule.steps_per_epoch=5"]
    words += ["trainer.strategy=ddp", f"trainer.devices={ranks}", "trainer.accelerator=cpu"]
    return [sys.executable, "-m", "lightning_vfe", "fit", *words]


def num_rows(run: Path) -> int:
    """Whole rows of metrics.csv."""
    file = run / "metrics.csv"
    return max(0, file.read_text().count("\n") - 1) if file.exists() else 0


def saved_step(run: Path) -> int:
    """Step of last.ckpt, 0 where there is none; reads all checkpoints.

    Raises:
        Exception: whatever torch says about a damaged file.
    """
    steps = {0}
    for file in (run / "checkpoints").glob("*.ckpt"):
        steps.add(torch.load(file, weights_only=True)["global_step"])
    last = run / "checkpoints" / "last.ckpt"
    found = int(torch.load(last, weights_only=True)["global_step"]) if last.exists() else 0
    assert found == max(steps), f"last.ckpt is of step {found}, but there is one of step {max(steps)}"
    return found


def kill_once(words: list[str], run: Path, rng: random.Random) -> str:
    """Start the command and kill all its processes, during the start or some steps later; says when."""
    before, started = num_rows(run), time.monotonic()
    output = (run.parent / "output.txt").open("a")
    process = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    wanted = rng.randint(0, 2 * STEPS_PER_ROUND - 2)
    if wanted == 0:
        time.sleep(rng.uniform(0.5, 8.0))
    # a resumed run first cuts the rows that it will log again
    start = min(before, saved_step(run))
    while wanted and process.poll() is None and not start + wanted <= num_rows(run) != before:
        assert time.monotonic() - started < LIMIT_SECONDS, "no progress"
        time.sleep(0.02)
    time.sleep(rng.uniform(0.0, 0.3))
    moment = f"{time.monotonic() - started:.1f} s"
    if process.poll() is not None:
        return f"after its end (exit code {process.returncode})"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    output.close()
    return f"after {moment}"


def differences(killed: Path, straight: Path) -> list[str]:
    """What the two runs do not have in common."""
    found = []
    if (killed / "metrics.csv").read_text() != (straight / "metrics.csv").read_text():
        found.append("metrics.csv")
    first, second = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (killed, straight))
    parts = ("state_dict", "optimizer_states", "lr_schedulers", "walkers", "global_step")
    found += [part for part in parts if not same(first[part], second[part])]
    files = [sorted(file.name for file in (run / "checkpoints").iterdir()) for run in (killed, straight)]
    return found + ([f"files {files[0]} instead of {files[1]}"] if files[0] != files[1] else [])


def same(first: Any, second: Any) -> bool:
    """Bit for bit, through dicts and lists."""
    if isinstance(first, dict):
        return set(first) == set(second) and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


def rounds(arguments: argparse.Namespace, folder: Path) -> list[str]:
    """Run everything; returns what is amiss."""
    rng, wrong = random.Random(arguments.seed), []
    steps = STEPS_PER_ROUND * (arguments.rounds + 1)
    straight, killed = folder / "straight" / "run", folder / "killed" / "run"
    for run in (straight, killed):
        run.parent.mkdir(parents=True)
    done = subprocess.run(command(straight, arguments.ranks, steps), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    words = command(killed, arguments.ranks, steps)
    for number in range(1, arguments.rounds + 1):
        moment = kill_once(words, killed, rng)
        saved, rows = saved_step(killed), num_rows(killed)
        print(f"kill {number}: {moment}, step {rows}, goes on from {saved}: {rows - saved} steps lost", flush=True)
        if rows - saved > EVERY_N_STEPS:
            wrong.append(f"kill {number} lost {rows - saved} steps, saves are {EVERY_N_STEPS} apart")
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return wrong + [f"not as in the uninterrupted run: {what}" for what in differences(killed, straight)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--ranks", type=int, default=2, help="processes of the run; 1 or 2")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--keep", type=Path, help="new folder for the runs, which are deleted otherwise")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        wrong = rounds(arguments, arguments.keep or Path(scratch))
    for line in wrong:
        print(f"WRONG: {line}")
    if not wrong:
        print(f"{arguments.rounds} kills; the run equals the uninterrupted one bit for bit")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
