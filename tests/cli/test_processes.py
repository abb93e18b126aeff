"""Threads and processes of a command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_vfe.cli import main
from lightning_vfe.cli.processes import WAIT_POLICY, wait_passively
from lightning_vfe.errors import CommandError
from lightning_vfe.workflows.folders import only_command_in, only_command_on
from lightning_vfe.workflows.processes import check_launcher


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


def test_figures_need_no_backend_of_the_environment() -> None:
    """A notebook hands its own one on to the commands that are called in it."""
    code = "from lightning_vfe.cli import main; main(['--version']); import matplotlib; print(matplotlib.get_backend())"
    environment = os.environ | {"MPLBACKEND": "no backend"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines()[-1].lower() == "agg"


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


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (
            {"OMPI_COMM_WORLD_SIZE": "2"},
            "OMPI_COMM_WORLD_SIZE = 2 in the environment: mpirun has started 2 processes, which do not know of each "
            "other; start one process with trainer.devices=2 trainer.strategy=ddp, or use torchrun or srun",
        ),
        (
            {"WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none"},
            "WORLD_SIZE = 2 in the environment: torchrun has started 2 processes, but this command has 1; give fit or "
            "test trainer.devices=2 trainer.strategy=ddp, or start one process",
        ),
        (
            {"SLURM_STEP_NUM_TASKS": "2", "PMI_SIZE": "2"},
            "SLURM_STEP_NUM_TASKS = 2 in the environment: srun has started 2 processes, but this command has 1; give "
            "fit or test trainer.devices=2 trainer.strategy=ddp, or start one process",
        ),
    ],
)
@pytest.mark.parametrize("verb", ["fit", "log-z"])
def test_launched_processes_that_do_not_know_of_each_other(
    verb: str,
    environment: dict[str, str],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each of them would train alone, and all would write the same folder."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = {"fit": ["experiment=smoke", "logger=csv", "trainer.accelerator=cpu"], "log-z": []}
    assert main([verb, *settings[verb], f"run_dir={tmp_path / 'run'}"]) == 2
    assert capsys.readouterr().err == f"error: {expected}\n"
    assert not (tmp_path / "run").exists()


def test_numbers_of_processes_that_are_right_or_left_by_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "4", "SLURM_STEP_NUM_TASKS": "2", "PMI_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    check_launcher(2)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    check_launcher(1)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["fit", "experiment=smoke", "logger=csv", "trainer.accelerator=cpu", "trainer.max_steps=1"], "run_dir"),
        (["log-z", "potential.path=potentials/h8_rs1p25_6000K.pt"], "run_dir"),
        (["label"], "run_dir"),
        (["label"], "label.database"),
    ],
)
def test_two_commands_do_not_write_into_one_folder(
    words: list[str], key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "labels.db").touch()
    place = tmp_path / ("run" if key == "run_dir" else "labels.db")
    with only_command_on(place, key):
        assert main([*words, f"{key}={place}"]) == 2
    expected = f"error: {key} = {place} is in use by another command; wait until it has ended, or give another one\n"
    assert capsys.readouterr().err == expected


def test_a_killed_command_leaves_no_lock_and_a_refused_one_no_folder(tmp_path: Path) -> None:
    home = tmp_path / "runs" / "one"
    code = (
        "import os, signal; from pathlib import Path; from lightning_vfe.workflows.folders import only_command_in\n"
        f"with only_command_in(Path({str(home)!r})): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    with only_command_in(home):
        pass
    with pytest.raises(CommandError), only_command_in(tmp_path / "more" / "two"):
        raise CommandError("refused")
    assert not (tmp_path / "more").exists()
