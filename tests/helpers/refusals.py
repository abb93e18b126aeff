"""Commands that must be refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_vfe.cli import main


def error_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must fail with exit code 2 and a single line on stderr, and leave no folder behind."""
    capsys.readouterr()
    before = set(Path.cwd().rglob("*"))
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: "), error
    assert error.count("\n") == 1, error
    assert set(Path.cwd().rglob("*")) == before
    return error.removeprefix("error: ").rstrip()
