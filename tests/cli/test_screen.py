"""What the user sees of a run on the screen, and the exit code that a script sees."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lightning_vfe import __version__
from lightning_vfe.cli import main

SMALL = ["experiment=smoke", "trainer.accelerator=cpu"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a few steps."""
    folder = tmp_path_factory.mktemp("screen") / "run"
    assert main(["fit", *SMALL, f"run_dir={folder}"]) == 0
    return folder


def test_fit_in_a_pipe_shows_optimizer_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *SMALL, "progress_seconds=1e-6", f"run_dir={tmp_path / 'run'}"]) == 0
    printed = capsys.readouterr().out
    assert "\r" not in printed
    assert printed.startswith("lightning-vfe fit: smoke")
    shown = re.findall(r"^\d{4}-\d\d-\d\d [\d:]{8}  (.*)$", printed, flags=re.MULTILINE)
    steps = [re.match(r"(\S+ \d+/\d+)", line)[1] for line in shown]  # type: ignore[index]
    assert steps == ["equilibrate 0/2", "equilibrate 1/2", "equilibrate 2/2", *(f"fit {n}/4" for n in range(5))]
    assert re.search(r"  F=-\d\.\d{4}\+-\d\.\d{4}  S=.*  P=.*  acc_p=.*  acc_e=", shown[-1])


def test_require_converged_ends_with_its_own_code(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The training of a few steps is not known to be good; without the flag this is no error."""
    words = ["test", f"run_dir={run}", "datamodule.test_steps=4"]
    assert main([*words, "--require-converged"]) == 3
    printed = " ".join(capsys.readouterr().out.split())
    assert "test 4/4" in printed
    assert "training not judged: 4 training steps count, and 80 are needed" in printed
    assert "sampling NOT CONVERGED: " in printed
    summary = json.loads((run / "summary.json").read_text())
    assert summary["provenance"]["version"] == __version__
    assert summary["provenance"]["command"] == f"lightning-vfe {' '.join(words)}"
    assert summary["units"]["pressure_gpa"] == "GPa"
    assert main(words) == 0
    capsys.readouterr()
    assert main(["fit", *SMALL, "--require-converged"]) == 2
    assert capsys.readouterr().err == "error: --require-converged goes with test\n"
