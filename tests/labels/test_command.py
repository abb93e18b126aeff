"""The verb `label` from the command line: a database, its provenance, refusals in one line."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ase.db import connect

from lightning_vfe.cli import main
from lightning_vfe.labels.database import LabelDatabase

LENNARD_JONES = ["calculator=ase", "+calculator.sigma=0.5", "+calculator.epsilon=0.1", "+calculator.rc=1.2"]
SHORT = ["label.chains.equilibration_steps=20", "label.chains.spacing=10", "label.num_force_checks=1"]


def test_labels_two_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["label", *LENNARD_JONES, *SHORT, "label.num_atoms=[2,4]", "label.num_configurations=3"]
    assert main([*words, f"run_dir={tmp_path}"]) == 0
    output = capsys.readouterr().out
    assert "round 0, N = 4, rs = 1.25: acceptance" in output and "by finite differences" in output
    assert f"{tmp_path / 'labels.db'}: 6 labels, 0 failed, 0 still to do" in output
    database = LabelDatabase.open(tmp_path / "labels.db")
    assert database.groups() == [(2, 1.25), (4, 1.25)]
    metadata = database.metadata
    assert metadata["calculator"] == {
        "_target_": "ase.calculators.lj.LennardJones",
        "sigma": 0.5,
        "epsilon": 0.1,
        "rc": 1.2,
    }
    assert "ASE" in metadata["program"] and metadata["command"][0].startswith("lightning-vfe")
    assert len(metadata["force_checks"]) == 1
    assert main([*words, f"run_dir={tmp_path}"]) == 0
    assert len(LabelDatabase.open(tmp_path / "labels.db")) == 6, "nothing was left to do"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["label.num_atoms=[]"], "label.num_atoms and label.rs must be lists"),
        (["calculator._target_=ase.nothing.Here"], "calculator._target_ = ase.nothing.Here cannot be used"),
        (["calculator._target_=ase.Atoms"], "calculator._target_ = ase.Atoms is no ASE calculator"),
        (["calculator=vmc"], "calculator.ckpt_path = null must name the run"),
        (["calculator=vmc", "calculator.ckpt_path=nowhere.ckpt"], "calculator.ckpt_path = nowhere.ckpt does not"),
        (["label.start_potential.cutoff=-4"], "error: label.start_potential.cutoff = -4 must be positive"),
        (["label.start_potential.cutoff=900"], "error: label.start_potential.cutoff = 900.0 must be positive and at"),
        (["label.num_configurations=0"], "label.num_configurations = 0 must be at least 1"),
        (["label.configurations_path=none.xyz"], "label.configurations_path = none.xyz does not exist"),
        (["system.temperature_kelvin=0"], "system.temperature_kelvin = 0.0 must be positive"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["label", "calculator=ase", f"run_dir={tmp_path}", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert message.startswith("label.num_configurations") or not list(tmp_path.iterdir())


def test_interrupt_keeps_what_is_done(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    pids.mkdir()
    words = ["label", "calculator=ase", "calculator._target_=tests.helpers.calculators.Slow", *SHORT]
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "SLOW_PIDS": str(pids), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "lightning_vfe", *words, "label.num_configurations=2", f"run_dir={tmp_path}"]
    # Where the tests themselves run in the background, Ctrl-C would be ignored, by their children, too.
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not any(pids.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 130
    assert "0 labels, 0 failed, 2 still to do" in output and "the same command goes on" in output
    with pytest.raises(ProcessLookupError):
        os.kill(int(next(pids.iterdir()).name), 0)
    assert connect(tmp_path / "labels.db").count(state="pending") == 2
