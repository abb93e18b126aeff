"""`--multirun`: which jobs there are, their folders, and what is said at the end."""

import importlib.util
import os
import signal
import sys
from pathlib import Path

import pandas as pd
import pytest

from lightning_vfe.cli import main
from lightning_vfe.cli.sweep import SWEEP_FILE, run_process
from lightning_vfe.workflows.folders import taken_sweep_folder

SMOKE = ["experiment=smoke", "trainer.accelerator=cpu", "logger=csv"]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_jobs_of_a_sweep_and_their_table(capfd: pytest.CaptureFixture[str]) -> None:
    """One of two jobs breaks down: the other one is fitted, tested and in the table."""
    words = [*SMOKE, "optimizer=adam", "callbacks.nan_guard.patience=1", "system.rs=1.5"]
    words += ["trainer.max_steps=2", "optimizer.wavefunction_learning_rate=0.001,1e200"]
    assert main(["fit", "--multirun", *words]) == 1
    captured = capfd.readouterr()
    names = [f"optimizer.wavefunction_learning_rate-{value}" for value in ("0.001", "1e+200")]
    assert captured.err.splitlines()[-1] == f"error: 1 of 2 jobs failed: {names[1]}"
    home = Path("runs/smoke-sweep")
    assert sorted(file.name for file in home.iterdir()) == [SWEEP_FILE, *names]
    assert (home / names[0] / "checkpoints" / "last.ckpt").is_file()
    assert len(pd.read_csv(home / names[0] / "metrics.csv")) == 2
    assert main(["test", "--multirun", *words]) == 1
    captured = capfd.readouterr()
    assert f"{names[1]} holds no checkpoints/last.ckpt" in captured.err
    table = pd.read_csv(home / "sweep.csv")
    assert list(table["optimizer.wavefunction_learning_rate"]) == [0.001]
    assert table.free_energy_per_atom_error[0] > 0
    assert "wavefunction_learning_rate" in captured.out
    assert f"table: {home / 'sweep.csv'}" in captured.out


def test_two_sweeps_at_once_get_folders_of_their_own() -> None:
    with taken_sweep_folder("a") as first, taken_sweep_folder("a") as second:
        assert [first.name, second.name] == ["a-sweep", "a-sweep-2"]
    with pytest.raises(ValueError, match="refused"), taken_sweep_folder("b") as third:  # noqa: PT012
        assert third.is_dir()
        raise ValueError("refused")
    assert not third.exists()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["fit", "-m", *SMOKE], "--multirun needs a key with several values"),
        (["fit", "-m", *SMOKE, "system.rs=1.2,fast"], "system.rs = fast must be a number"),
        (["fit", "-m", *SMOKE, "system.num_atoms=2,many"], "system.num_atoms = many must be a whole number"),
        (["fit", "-m", *SMOKE, "system.rz=1.2,1.4"], "system.rz = 1.2 is not a key; did you mean 'system.rs'"),
        (["fit", "-m", *SMOKE, "seed=1,2,1"], "seed = 1,2,1 has seed=1 twice"),
        (["fit", "-m", *SMOKE, "flow=equivariant,other"], "flow = other does not exist"),
        (["fit", "-m", *SMOKE, "optimizer.flow_damping=0.1,0"], "optimizer.flow_damping = 0 must be positive"),
        (
            ["fit", "-m", *SMOKE, "callbacks.nan_guard.patience=1,0"],
            "callbacks.nan_guard.patience = 0 must be at",
        ),
        (["fit", "-m", *SMOKE, "trainer.devices=1,3"], "multiple of the 3 processes"),
        (["fit", "-m", *SMOKE, "system.structure=random,nowhere.xyz"], "system.structure = nowhere.xyz is neither"),
        (["fit", "-m", *SMOKE, "system.states=[[2,6000]]", "system.rs=1,2"], "system.rs = 1 has no effect"),
        (["fit", "-m", "system.rs=1.2,1.4", "ckpt_path=last"], "ckpt_path = last is chosen by --multirun"),
        (["fit", "-m", "system.rs=1.2,1.4", "run_dir=used"], "run_dir = used is not the folder of a sweep"),
        (["test", "-m", "system.rs=1.2,1.4"], "run fit --multirun first"),
        (["log-z", "-m", "system.rs=1.2,1.4"], "--multirun goes with fit, validate, test"),
        (["fit", "-m", "--print-config", "system.rs=1.2,1.4"], "no other flag"),
        (["fit", "system.rs=1.2,1.4"], "add --multirun"),
        (["fit", "-m", *SMOKE, "system.rs=1,2", "hydra/launcher=none"], "cannot launch the jobs: "),
    ],
)
def test_bad_words_end_in_one_line(words: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("used").mkdir()
    Path("used/config.yaml").write_text("name: smoke")
    assert main(words) == 2
    error = capsys.readouterr().err
    assert part in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert [file.name for file in Path.cwd().rglob("*")] == ["used", "config.yaml"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_job_before_the_sweep(number: signal.Signals, code: int) -> None:
    program = f"""
import os, signal, sys, time
signal.signal({int(number)}, lambda *_: sys.exit(128 + {int(number)}))
os.kill({os.getpid()}, {int(number)})  # Ctrl-C reaches both
{"os.kill(os.getpid(), signal.SIGINT)" if number == signal.SIGINT else ""}
time.sleep(60)
"""
    before = signal.getsignal(signal.SIGTERM)
    assert run_process([sys.executable, "-c", program]) == code
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="the extra slurm is missing")
def test_submitit_runs_the_jobs(capfd: pytest.CaptureFixture[str]) -> None:
    """On this machine, as it would on a cluster; a second time they go on where they are."""
    words = [*SMOKE, "hydra/launcher=submitit_local", "system.rs=1.25,1.5", "run_dir=sweep"]
    for steps in (1, 2):
        assert main(["fit", "-m", *words, f"trainer.max_steps={steps}"]) == 0, capfd.readouterr().err
    for name in ("system.rs-1.25", "system.rs-1.5"):
        assert list(pd.read_csv(Path("sweep") / name / "metrics.csv").step) == [0, 1]
