"""Several processes from the command line: one voice, signals, clusters, and what a kill leaves behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from lightning.pytorch.utilities import rank_zero_only

from lightning_vfe.cli import main, processes
from lightning_vfe.workflows.build import build_trainer
from lightning_vfe.workflows.compose import compose_config
from lightning_vfe.workflows.overrides import parse
from tests.helpers.ranks import Launcher, assert_same_tables, by_srun, by_torchrun, fit_table, run_ranks

DDP = ["experiment=smoke", "logger=csv", "trainer.strategy=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]
LIMIT_SECONDS = 300


def start(*words: str) -> subprocess.Popen[str]:
    """Start the command in the working directory."""
    command = [sys.executable, "-m", "lightning_vfe", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, and what was printed."""
    printed, errors = process.communicate(timeout=LIMIT_SECONDS)
    return process.returncode, printed, errors


def test_a_terminated_run_saves_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM to the first process stops both after the same step."""
    monkeypatch.chdir(tmp_path)
    run, process, began = Path("runs/smoke"), start("fit", *DDP, "trainer.max_steps=100000"), time.monotonic()
    while process.poll() is None and not ((run / "metrics.csv").exists() and len(pd.read_csv(run / "metrics.csv")) > 1):
        assert time.monotonic() - began < LIMIT_SECONDS
        time.sleep(0.1)
    process.terminate()
    code, printed, errors = finish(process)
    assert code == 128 + signal.SIGTERM, errors
    assert not errors
    assert printed.count("lightning-vfe fit: smoke") == printed.count("SIGTERM: ending this step") == 1
    assert "2 (cpu)" in printed
    assert "1 walker group of 4 proton walkers" in printed
    assert [folder.name for folder in Path("runs").iterdir()] == ["smoke"], "the folder is chosen once"
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert list(pd.read_csv(run / "metrics.csv").step) == list(range(saved))
    code, printed, errors = finish(start("fit", "ckpt_path=last", "experiment=smoke", f"trainer.max_steps={saved + 1}"))
    assert (code, errors) == (0, "")
    assert "next: lightning-vfe test" in printed
    code, printed, errors = finish(start("test", "experiment=smoke"))
    assert (code, errors) == (0, "")
    assert printed.count("effective_sample_size") == 1
    assert (run / "summary.json").is_file()


def test_an_error_of_all_processes_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = [
        "optimizer=adam",
        "callbacks.nan_guard.patience=1",
        "optimizer.wavefunction_learning_rate=1e200",
        "trainer.max_steps=9",
    ]
    code, _, errors = finish(start("fit", *DDP, *words))
    assert code == 1, errors
    assert errors.startswith("error: "), errors
    assert errors.count("\n") == 1, errors


def test_a_dead_process_ends_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    process, run = start("fit", *DDP, "trainer.max_steps=100000", "run_dir=run"), Path("run")
    began = time.monotonic()
    while process.poll() is None and not (run / "metrics.csv").exists():
        assert time.monotonic() - began < LIMIT_SECONDS
        time.sleep(0.1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    further = [each for each in map(int, children) if b"lightning_vfe" in Path(f"/proc/{each}/cmdline").read_bytes()]
    os.kill(further[0], signal.SIGKILL)
    died = time.monotonic()
    code, _, errors = finish(process)
    assert time.monotonic() - died < 10.0
    assert code == 1
    assert errors.startswith("error: process 1 of the run has died (SIGKILL), and the others end; resume with")
    assert errors.count("\n") == 1, errors


def test_a_further_process_speaks_where_the_first_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    waited: list[float] = []
    monkeypatch.setattr(processes.time, "sleep", waited.append)
    monkeypatch.setenv("RANK", "3")
    assert main(["test", "ckpt_path=none.ckpt"]) == 2
    assert waited == [processes.GRACE_SECONDS]
    assert f"(process 3 on {os.uname().nodename})" in capsys.readouterr().err


@pytest.mark.parametrize("launcher", [by_torchrun, by_srun])
def test_two_nodes_do_what_one_process_does(tmp_path: Path, launcher: Launcher) -> None:
    words = ["experiment=smoke", "logger=csv", "sampler.chain_precision=float64"]
    tables = [fit_table(words, ranks, tmp_path / f"{ranks}" / "run", launcher) for ranks in (1, 2)]
    assert_same_tables(*tables)
    run = tmp_path / "2" / "run"
    # a job that its cluster starts once more
    words = ["fit", *words, f"run_dir={run}", "ckpt_path=auto", "trainer.max_steps=5"]
    printed = run_ranks(words, 2, tmp_path / "2", launcher)
    assert "2 (cpu) on 2 nodes" in printed[0]
    assert not printed[1]
    assert list(pd.read_csv(run / "metrics.csv").step) == list(range(5))


def test_slurm_does_not_save_in_the_midst_of_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in by_srun(1, 2).items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("MASTER_PORT", "0")
    # the trainer makes this process the second one in Lightning's eyes: put it back, or later tests write no files
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    words = ["experiment=smoke", "trainer.accelerator=cpu", "trainer.num_nodes=2", f"run_dir={tmp_path}"]
    trainer = build_trainer(compose_config(parse(words)), "test", print, progress=False)
    environment = trainer._accelerator_connector.cluster_environment
    assert type(environment).__name__ == "SLURMEnvironment"
    assert not environment.auto_requeue
    assert (trainer.world_size, trainer.global_rank, trainer.is_global_zero) == (2, 1, False)


def test_a_killed_run_equals_one_that_nobody_touched() -> None:
    """One kill of a run of two processes; the script does twenty by itself."""
    script = Path(__file__).parents[2] / "benchmarks" / "kill_and_resume.py"
    done = subprocess.run(
        [sys.executable, str(script), "--rounds", "1"], capture_output=True, text=True, timeout=2 * LIMIT_SECONDS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bit for bit" in done.stdout
