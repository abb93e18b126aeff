"""Threads and processes of a command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_vfe.cli import main
from lightning_vfe.cli.processes import WAIT_POLICY, wait_passively


def test_threads_sleep_while_they_wait_unless_the_user_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WAIT_POLICY, raising=False)
    wait_passively()
    assert os.environ[WAIT_POLICY] == "passive"
    monkeypatch.setenv(WAIT_POLICY, "active")
    wait_passively()
    assert os.environ[WAIT_POLICY] == "active"


def test_it_is_set_before_torch_is_loaded() -> None:
    """OpenMP reads it then."""
    code = (
        "import os, sys; from lightning_vfe.cli import main; main(['--version']); "
        "print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name != WAIT_POLICY}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines()[-1] == "passive False"


def test_a_number_of_tasks_that_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", "experiment=smoke", "logger=csv", "trainer.accelerator=cpu", "trainer.max_steps=1"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_NTASKS", "")
    assert main([*words, "run_dir=run"]) == 0
    monkeypatch.setenv("SLURM_NTASKS", "two")
    capsys.readouterr()
    assert main([*words, "run_dir=other"]) == 2
    expected = "error: SLURM_NTASKS = two in the environment must be a whole number; outside of a job of SLURM: unset"
    assert capsys.readouterr().err == f"{expected} SLURM_NTASKS\n"
