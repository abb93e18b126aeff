"""Threads and processes of a command."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

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
