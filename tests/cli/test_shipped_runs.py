"""Runs that come with the package: found by name from every working directory, and nothing is written beside them."""

from pathlib import Path

import pytest

import lightning_vfe as lv
from lightning_vfe.cli import main
from lightning_vfe.resources import data_folder, is_shipped, resource_folder
from tests.helpers.refusals import error_line

NAME = "data/runs/eos_h8_tabc"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_of_the_user_comes_first(tmp_path: Path) -> None:
    shipped = resource_folder("data") / "runs" / "eos_h8_tabc"
    assert data_folder(NAME) == shipped
    assert is_shipped(shipped)
    assert data_folder("runs/eos_h8_tabc") == Path("runs/eos_h8_tabc"), "a run of the user, which is missing"
    (tmp_path / NAME).mkdir(parents=True)
    assert data_folder(NAME) == Path(NAME)
    assert not is_shipped(NAME)


def test_eos_and_report_of_the_shipped_run(capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(resource_folder("data").rglob("*"))
    assert main(["eos", NAME]) == 0
    assert Path("runs/eos/eos.csv").is_file()
    assert main(["report", f"runs=[{NAME}]", "run_dir=page"]) == 0
    assert sorted(resource_folder("data").rglob("*")) == before
    line = error_line(["eos", "runs/eos_h8_tabc"], capsys)
    assert line == f"run folder runs/eos_h8_tabc does not exist; the run of this name that is shipped is {NAME}"
    Path("file").touch()
    assert error_line(["report", "runs=[file]"], capsys) == "run folder file is a file; give the folder of a run"


def test_networks_of_the_shipped_run_are_a_start(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", f"init_from={NAME}", "base=uniform", "trainer.accelerator=cpu", "wavefunction.num_layers=9"]
    line = error_line([*words, "run_dir=run"], capsys)
    assert "wavefunction.num_layers = 9 here but" in line
    assert "eos_h8_tabc/checkpoints/last.ckpt" in line


def test_the_shipped_run_is_loaded() -> None:
    assert lv.load(NAME).step == 400
