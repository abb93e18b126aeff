"""`benchmarks/faults.py`: the cut of the campaign finds nothing, and its parts judge as they say."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


def test_the_cut_of_the_campaign_finds_nothing() -> None:
    environment = os.environ | {"PYTHONPATH": str(FOLDER.parent), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(FOLDER / "faults.py"), "--quick", "--seed", "3"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("answered well") == 1
    for fault in ("kill -9", "signal to", "full disk", "closed pipe", "flipped bit", "a setting is"):
        assert fault in done.stdout
    assert "0 of them answered badly (seed 3)" in done.stdout


@pytest.mark.parametrize(
    ("code", "err", "expected"),
    [
        (0, "", True),
        (2, "error: system.rs = -1 must be positive\n", True),
        (2, "error: one line\nand another\n", False),
        (1, "Traceback (most recent call last):\n", False),
        (130, "interrupted\n", True),
        (137, "", False),
        (-11, "", False),
        (None, "", False),
    ],
)
def test_what_a_clean_end_is(code: int | None, err: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    from fault_commands import Outcome

    assert Outcome(code, "", err, 1.0).is_clean is expected


def test_one_bit_is_flipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    from fault_files import flip

    file = tmp_path / "file"
    file.write_bytes(bytes(100))
    os.link(file, tmp_path / "other")
    flip(file, random.Random(0))
    assert sum(byte.bit_count() for byte in file.read_bytes()) == 1
    assert not any((tmp_path / "other").read_bytes())
