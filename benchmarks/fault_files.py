"""A flipped bit in each file of a run, for `faults.py`."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from fault_commands import FIT, VERBS, equal, result, run

ML_BASE = ("fit", "base=schnet", "base.potential_path=pair.pt", "base.log_z_path=pair.log_z.json")
SMALL = ("system.num_atoms=2", "system.twists=[1,1,1]", "trainer.accelerator=cpu", "logger=csv", "trainer.max_steps=2")
SMALL = (*SMALL, "flow.num_layers=1", "flow.num_channels=2", "wavefunction.num_layers=1", "wavefunction.single_width=4")
SMALL = (*SMALL, "wavefunction.pair_width=4", "sampler.num_proton_walkers=8", "sampler.num_electron_walkers=2")
SMALL = (*SMALL, "datamodule.equilibration_steps=2", "run_dir=ml")
FIT_ON = (*FIT[:-2], "trainer.max_steps=14", "callbacks.checkpoint.every_n_steps=3", "run_dir=run", "ckpt_path=last")
REPORT = ("report", "runs=[run]", "run_dir=report")


class Reader(NamedTuple):
    """A command that reads a file, and what it finds."""

    file: str
    home: str
    words: Sequence[str]
    found: Callable[[Path], Any]


def _trained(home: Path) -> Any:
    content = torch.load(home / "ml" / "checkpoints" / "last.ckpt", weights_only=True)
    return {part: content[part] for part in ("state_dict", "walkers")}


def _report(home: Path) -> Any:
    return (home / "report" / "comparison.csv").read_text()


READERS = (
    Reader("run/checkpoints/last.ckpt", "test", VERBS["test"], lambda home: result(home, "test")),
    Reader("run/config.yaml", "test", VERBS["test"], lambda home: result(home, "test")),
    Reader("run/metrics.csv", "test", FIT_ON, lambda home: result(home, "fit")),
    Reader("run/summary.json", "test", REPORT, _report),
    Reader("pair.log_z.json", "log-z", (*ML_BASE, *SMALL), _trained),
    Reader("pair.pt", "log-z", (*ML_BASE, *SMALL), _trained),
    Reader("labels/labels.db", "label", VERBS["label"], lambda home: result(home, "label")),
)


def flips(campaign: Any, tries: int) -> None:
    """Flip a random bit of a file that a command reads: it must refuse in one line, or find the same numbers."""
    for reader in READERS:
        home, row = campaign.folder / "flip", campaign.row(f"flipped bit in `{Path(reader.file).name}`")
        shutil.copytree(campaign.made / reader.home, home)
        straight_run = run(reader.words, home)
        assert straight_run.code == 0, (reader, straight_run)
        straight = reader.found(home)
        shutil.rmtree(home)
        for _ in range(tries):
            shutil.copytree(campaign.made / reader.home, home)
            flip(home / reader.file, campaign.rng)
            outcome = run(reader.words, home)
            wrong = "" if outcome.is_clean else f"unclean: {outcome}"
            if outcome.code == 0 and not equal(reader.found(home), straight):
                wrong = "other numbers without a word"
            row.add(outcome, wrong, "the content of the file, until it is written again")
            shutil.rmtree(home)
        campaign.finish(row)


def flip(file: Path, rng: random.Random) -> None:
    """Flip one bit; a second name of the file, such as step-N.ckpt, keeps the old content."""
    content = bytearray(file.read_bytes())
    place = rng.randrange(len(content))
    content[place] ^= 1 << rng.randrange(8)
    file.unlink()
    file.write_bytes(bytes(content))
