"""Terminals and languages that lack a character, such as those of old clusters: no traceback, and no sign is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_vfe.cli import main
from lightning_vfe.cli.banner import print_rows

ASCII = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}


def run(code: str) -> str:
    """What a program prints where only ASCII is known."""
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=os.environ | ASCII, capture_output=True, text=True, check=True)
    return done.stdout


def test_a_terminal_without_a_minus_sign() -> None:
    code = "from lightning_vfe.cli.output import lasting_output\nwith lasting_output(): print(chr(0x2212) + '0.4', {})"
    assert run(code.format("'(' + chr(0xb1) + '1)', chr(0x2588)")) == "-0.4 (+-1) ?\n"


def test_files_have_one_encoding_everywhere(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    code = f"from lightning_vfe.files import whole_file\nwith whole_file({str(file)!r}) as s: s.write(chr(0x2212))"
    run(code)
    assert file.read_bytes() == "\N{MINUS SIGN}".encode()


def test_bytes_that_are_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    """Python keeps them as surrogates, which no file of text takes."""
    assert main(["fit", "experiment=smoke", "run_dir=" + os.fsdecode(b"b\xfcro")]) == 2
    expected = "error: 'run_dir=b\\udcfcro' holds bytes that are no text in utf-8; rename the file, or choose another "
    assert capsys.readouterr().err == f"{expected}language by LC_ALL\n"


def test_brackets_of_a_folder_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows("fit", "run", [("run folder", "[a,b]/c")])
    assert "[a,b]/c" in capsys.readouterr().out
