"""Signals, closed pipes, full disks and left-over variables: no work is lost, and the exit code tells what happened."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch

from lightning_vfe.models.potential.storage import save_potential
from lightning_vfe.models.potential.yukawa import YukawaPotential
from tests.helpers.commands import Command, num_rows, start

FIT = ["fit", "experiment=smoke", "trainer.accelerator=cpu", "logger=csv", "callbacks.checkpoint.every_n_steps=1000"]
LONG = [*FIT, "trainer.max_steps=100000", "run_dir=run"]
ANSWER_SECONDS = 20.0
"""An answer takes less than one; machines of tests are busy."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Working directory of a run of four steps, `run`, and of a potential."""
    folder = tmp_path_factory.mktemp("trained")
    code, _, errors = start([*FIT, "run_dir=run"], folder).wait()
    assert (code, errors) == (0, "")
    metadata = {"rs_range": [1.2, 1.3], "temperature_kelvin": 6000.0, "label": {}}
    torch.set_default_dtype(torch.float64)
    save_potential(YukawaPotential(screening_length=0.6), folder / "pair.pt", metadata)
    return folder


def saved_step(run: Path) -> int:
    return int(torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"])


def answer(command: Command, *numbers: int) -> tuple[int, str, str]:
    """Send signals, and assert that the command ends soon."""
    sent = command.signal(*numbers)
    result = command.wait()
    assert time.monotonic() - sent < ANSWER_SECONDS
    assert "Traceback" not in result[2]
    return result


@pytest.mark.parametrize(
    ("words", "begun", "number"),
    [
        ([*LONG, "datamodule.equilibration_steps=100000", "run_dir=new"], "new/config.yaml", signal.SIGTERM),
        (["test", "run_dir=run", "datamodule.test_steps=100000"], "out-{}.txt", signal.SIGTERM),
        (["label", "calculator=ase", "label.chains.spacing=100000", "run_dir=l"], "l/labels.db", signal.SIGHUP),
        (
            ["log-z", "potential.path=pair.pt", "log_z.max_sweeps=100000", "log_z.pilot_sweeps=100000", "run_dir=z"],
            "z/config.yaml",
            signal.SIGUSR1,
        ),
    ],
    ids=["equilibration", "test", "label", "log-z"],
)
def test_signals_are_answered_in_every_phase(
    trained: Path, words: list[str], begun: str, number: signal.Signals
) -> None:
    command = start(words, trained)
    file = trained / begun.format(command.out.stem.removeprefix("out-"))
    command.until(lambda: file.is_file() and file.stat().st_size > 0)
    time.sleep(0.5)
    code, printed, errors = answer(command, number)
    assert code == 128 + number, errors
    assert "interrupted" in printed + errors
    assert not (trained / "new" / "checkpoints").exists()


def test_a_closed_terminal_saves_even_where_nobody_reads(tmp_path: Path) -> None:
    """The reader of the pipe is gone first, as with `fit | tee log` and Ctrl-C; then the terminal closes."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = start(LONG, tmp_path, out=pipe)
    with pipe.open() as reader:
        assert "lightning-vfe fit: smoke" in reader.readline()
    command.until(lambda: num_rows(tmp_path / "run") > 2)
    code, _, errors = answer(command, signal.SIGHUP)
    assert (code, errors) == (128 + signal.SIGHUP, "")
    assert saved_step(tmp_path / "run") == num_rows(tmp_path / "run")


def test_a_second_interrupt_stops_at_once(tmp_path: Path) -> None:
    command = start([*LONG, "sampler.num_electron_steps=500"], tmp_path)
    command.until(lambda: num_rows(tmp_path / "run") > 0)
    code, printed, _ = answer(command, signal.SIGINT, signal.SIGINT)
    assert code == 130
    assert "Ctrl-C again stops at once" in printed
    assert "interrupted before the first save; nothing is saved" in printed


def test_two_runs_at_once_get_folders_of_their_own(tmp_path: Path) -> None:
    """And the environment of another job makes no second process of a run."""
    stale = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}
    commands = [start(FIT, tmp_path, environment=variables) for variables in ({}, stale)]
    for command in commands:
        code, printed, errors = command.wait()
        assert (code, errors) == (0, "")
        assert "next: lightning-vfe test" in printed
    assert sorted(folder.name for folder in (tmp_path / "runs").iterdir()) == ["smoke", "smoke-2"]
    for run in (tmp_path / "runs").iterdir():
        assert (run / "config.yaml").is_file()
        assert (num_rows(run), saved_step(run)) == (4, 4)


@pytest.mark.parametrize("steps", [30, 8])
def test_a_full_disk_is_one_line(trained: Path, tmp_path: Path, steps: int) -> None:
    """No space for the table in the first case, and for a checkpoint in the second."""
    words = ["fit", f"ckpt_path={trained / 'run'}/checkpoints/last.ckpt", "run_dir=run", f"trainer.max_steps={steps}"]
    code, _, errors = start(words, tmp_path, largest_file=8000 if steps == 30 else 30000).wait()
    assert code == 1
    assert errors.startswith("error: "), errors
    assert errors.count("\n") == 1
    assert "File too large" in errors
    assert "free some space" in errors
    assert not [file for file in tmp_path.rglob("*") if ".new" in file.name or ".pending" in file.name]
    table = (tmp_path / "run" / "metrics.csv").read_text()
    assert table.endswith("\n")
    assert 1 < num_rows(tmp_path / "run") <= steps


@pytest.mark.parametrize("logger", ["csv", "tensorboard"])
def test_a_run_folder_that_is_moved_is_one_line(tmp_path: Path, logger: str) -> None:
    """Deleted or moved: the files can no longer be written to."""
    command = start([*LONG, f"logger={logger}"], tmp_path)
    command.until(lambda: num_rows(tmp_path / "run") > 1)
    (tmp_path / "run").rename(tmp_path / "other")
    code, _, errors = command.wait()
    assert code == 1
    assert errors.startswith("error: run"), errors
    assert "was deleted or moved during the run; the steps since the last save are lost" in errors
    assert errors.count("\n") == 1
    assert num_rows(tmp_path / "other") > 1
