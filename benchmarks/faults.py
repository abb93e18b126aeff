"""Disturb commands in every way that a machine or a user can, at random, and look at what is left.

    python benchmarks/faults.py --seed 1              # all fault kinds
    python benchmarks/faults.py --quick               # a cut of less than a minute
    python benchmarks/faults.py --seed 1 --table      # and write the table of docs/faults.md

Small runs of fit, test, log-z and label are killed, stopped by signals, written to full disks and closed pipes, and
read from files with a flipped bit. Settings get values that no run can have. A fault is answered well where the user
sees no traceback, at most one line of error and a documented exit code, and where the same command then ends with the
numbers of an undisturbed one, bit for bit. Each line of the table is one kind of fault. The exit code is 1 where a
fault was answered badly.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fault_commands import PRELOAD, VERBS, Outcome, equal, moment, prepare, result, run
from fault_files import flips
from fault_ranks import dead_ranks
from fault_settings import wrong_settings
from fault_table import HEADER, Row, write_table

PAGE_SIZE = 4096
"""Files take whole pages of a small disk."""
SIGNALS = (
    (signal.SIGINT,),
    (signal.SIGTERM,),
    (signal.SIGHUP,),
    (signal.SIGUSR1,),
    (signal.SIGINT, signal.SIGINT),
)


class Campaign:
    """Faults of one seed in a scratch folder.

    Attributes:
        rows: of the table, by the names of the faults; those of several seeds are put together.
        straight: by verb, what an undisturbed command finds and how many seconds it takes.
    """

    def __init__(self, folder: Path, seed: int, tries: int, rows: dict[str, Row]) -> None:
        self.folder, self.rng, self.tries, self.rows = folder, random.Random(seed), tries, rows
        self.straight: dict[str, tuple[Any, float]] = {}
        self.made = folder / "made"
        for verb, words in VERBS.items():
            home = self.made / verb
            prepare(home, verb)
            done = run(words, home)
            assert done.code in (0, 1), done.err
            self.straight[verb] = result(home, verb), done.seconds

    def row(self, fault: str) -> Row:
        """The row of a fault."""
        return self.rows.setdefault(fault, Row(fault))

    def disturbed(self, fault: str, verb: str, command: Callable[[Path], Outcome], lost: str) -> None:
        """Disturb a verb, then run it undisturbed, and compare with what it finds without the fault.

        Args:
            fault: name of the row.
            verb: of the command.
            command: runs it in a fresh folder, disturbed.
            lost: what is lost.
        """
        row = self.row(fault)
        for _ in range(self.tries):
            home = self.folder / "try"
            if verb == "test":
                shutil.copytree(self.made / "fit", home)
            else:
                prepare(home, verb)
            outcome = command(home)
            again = run(VERBS[verb], home)
            found = result(home, verb)
            wrong = "" if outcome.is_clean or outcome.code == -signal.SIGKILL else f"unclean: {outcome}"
            if again.code not in (0, 1) or not again.is_clean:
                wrong = f"does not go on: {again}"
            elif not equal(found, self.straight[verb][0]):
                wrong = "goes on to other numbers"
            row.add(outcome, wrong, lost)
            shutil.rmtree(home)
        self.finish(row)

    def finish(self, row: Row) -> None:
        """Print a row."""
        print(f"{row}\n{row.seen}", flush=True)
        for wrong in row.wrong:
            print(f"WRONG: {row.fault}: {wrong}", flush=True)


def kills(campaign: Campaign, verb: str) -> None:
    """kill -9 of all processes of a command."""

    def kill(home: Path) -> Outcome:
        wait = moment(campaign.rng, campaign.straight[verb][1])
        return run(VERBS[verb], home, lambda number: _later(number, wait, (signal.SIGKILL,)))

    campaign.disturbed(f"`kill -9` of {verb}", verb, kill, LOST[verb])


FOLDERS = {"fit": "run", "test": "run", "log-z": "z", "label": "labels"}
LOST = {
    "fit": "steps since the last save",
    "test": "the measurement",
    "log-z": "the samples of at most 25 sweeps",
    "label": "the label in progress",
}


def signals(campaign: Campaign, verb: str) -> None:
    """The signals of users, clusters and terminals."""

    def send(home: Path) -> Outcome:
        numbers = campaign.rng.choice(SIGNALS)
        wait = moment(campaign.rng, campaign.straight[verb][1])
        return run(VERBS[verb], home, lambda number: _later(number, wait, numbers))

    lost = "nothing; after a second SIGINT, steps since the last save" if verb == "fit" else LOST[verb]
    campaign.disturbed(f"signal to {verb}", verb, send, lost)


def full_disks(campaign: Campaign, verb: str) -> None:
    """A disk without space: a small one where it may be mounted, or else a limit on the size of all files."""

    def fill(home: Path) -> Outcome:
        size = campaign.rng.randint(2, 120) * 1024
        return _on_small_disk(home / FOLDERS[verb], size, lambda limit: run(VERBS[verb], home, largest_file=limit))

    campaign.disturbed(f"full disk during {verb}", verb, fill, LOST[verb])


def _on_small_disk(folder: Path, size: int, command: Callable[[int | None], Outcome]) -> Outcome:
    """Run a command whose folder can take so many bytes more; what it has written stays."""
    with tempfile.TemporaryDirectory() as place:
        files = [file for file in folder.rglob("*") if file.is_file()]
        more = sum(PAGE_SIZE * math.ceil(file.stat().st_size / PAGE_SIZE) for file in files)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size + more}", "tmpfs", place]
        if subprocess.run(mount, capture_output=True).returncode != 0:
            return command(size)
        try:
            if folder.exists():
                shutil.copytree(folder, place, dirs_exist_ok=True)
                shutil.rmtree(folder)
            folder.symlink_to(place)
            outcome = command(None)
            folder.unlink()
            shutil.copytree(place, folder)
        finally:
            subprocess.run(["umount", place], check=True)
        return outcome


def closed_pipes(campaign: Campaign, verb: str) -> None:
    """The reader of stdout goes away, as in `lightning-vfe fit | head`."""

    def close(home: Path) -> Outcome:
        pipe = home / "pipe"
        os.mkfifo(pipe)
        reader = threading.Thread(target=lambda: pipe.open().read(campaign.rng.randint(1, 40)))
        reader.start()
        outcome = run(VERBS[verb], home, out=pipe)
        reader.join()
        return outcome

    campaign.disturbed(f"closed pipe behind {verb}", verb, close, "what was to be printed")


def _later(number: int, wait: float, signals: tuple[int, ...]) -> None:
    """Send signals to a process group after some time; one that has ended needs none."""

    def send() -> None:
        time.sleep(wait)
        for each in signals:
            try:
                os.killpg(number, each)
            except ProcessLookupError:
                return
            time.sleep(0.05)

    threading.Thread(target=send, daemon=True).start()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, nargs="+", default=[0], help="of all moments, places and values")
    parser.add_argument("--quick", action="store_true", help="one try of a few faults")
    parser.add_argument("--tries", type=int, default=4, help="of each kind of fault")
    parser.add_argument("--settings", type=int, default=400, help="number of wrong settings")
    parser.add_argument("--table", action="store_true", help="write the table of docs/faults.md")
    given = parser.parse_args()
    for name in PRELOAD:
        __import__(name)
    rows: dict[str, Row] = {}
    print(HEADER, flush=True)
    for seed in given.seed:
        with tempfile.TemporaryDirectory() as scratch:
            campaign = Campaign(Path(scratch), seed, 1 if given.quick else given.tries, rows)
            for each in (kills, signals, full_disks, closed_pipes):
                for verb in (campaign.rng.choice(list(VERBS)),) if given.quick else VERBS:
                    each(campaign, verb)
            flips(campaign, 1 if given.quick else 2 * given.tries)
            wrong_settings(campaign, 4 if given.quick else given.settings)
            if not given.quick:
                dead_ranks(campaign)
        if given.table:
            write_table(rows.values())
    bad, tries = (sum(count) for count in zip(*((len(row.wrong), row.tries) for row in rows.values()), strict=True))
    print(f"{tries} faults, {bad} of them answered badly (seed {', '.join(map(str, given.seed))})")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
