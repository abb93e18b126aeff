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
    assert "round 0, N = 4, rs = 1.25: acceptance" in output
    assert "by finite differences" in output
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
    assert "ASE" in metadata["program"]
    assert metadata["command"][0].startswith("lightning-vfe")
    assert len(metadata["force_checks"]) == 1
    assert main([*words, f"run_dir={tmp_path}"]) == 0
    assert len(LabelDatabase.open(tmp_path / "labels.db")) == 6, "nothing was left to do"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["label.num_atoms=[]"], "label.num_atoms and label.rs must be lists"),
        (["calculator._target_=ase.nothing.Here"], "calculator._target_ = ase.nothing.Here cannot be imported"),
        (["calculator._target_=ase.Atoms"], "calculator._target_ = ase.Atoms is no ASE calculator"),
        (["calculator=vmc"], "calculator.ckpt_path = null must name the run"),
        (["calculator=vmc", "calculator.ckpt_path=nowhere.ckpt"], "calculator.ckpt_path = nowhere.ckpt does not"),
        (["label.start_potential.cutoff=-4"], "error: label.start_potential.cutoff = -4 must be positive"),
        (["label.start_potential.cutoff=900"], "error: label.start_potential.cutoff = 900.0 must be positive and at"),
        (["label.num_configurations=0"], "label.num_configurations = 0 must be at least 1"),
        (["label.configurations_path=none.xyz"], "label.configurations_path = none.xyz does not exist"),
        (["system.temperature_kelvin=0"], "system.temperature_kelvin = 0 must be positive"),
        (["system.rs=[1.2,1.3]"], "error: system.rs = [1.2, 1.3] has several state points; give one"),
        (["label.rs_range=[1.2,2.1]"], "label.temperature_range = null is missing: a region needs both ranges"),
        (
            ["label.rs_range=[2.1,1.2]", "label.temperature_range=[4000,9000]"],
            "label.rs_range = [2.1, 1.2] must be two",
        ),
        (["label.rs_range=[1.2]", "label.temperature_range=[4000,9000]"], "label.rs_range = [1.2] must be a pair"),
        (["label.num_states=7"], "label.num_states = 7 has no effect"),
        (
            ["label.rs_range=[1.2,2.1]", "label.temperature_range=[4000,9000]", "label.rs=[1.3]"],
            "label.rs = [1.3] has no",
        ),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["label", "calculator=ase", f"run_dir={tmp_path}", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert message.startswith("label.num_configurations") or not list(tmp_path.iterdir())


def test_labels_fill_a_region(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Densities and temperatures are spread evenly; the same command finds nothing left to do; the region is kept."""
    words = ["label", *LENNARD_JONES, *SHORT, "label.num_atoms=[2]", "label.num_configurations=1"]
    words += ["label.rs_range=[1.2,2.0]", "label.temperature_range=[4000,10000]", "label.num_states=4"]
    assert main([*words, f"run_dir={tmp_path}"]) == 0
    assert "rs = 1.3, T = " in capsys.readouterr().out
    database = LabelDatabase.open(tmp_path / "labels.db")
    assert [rs for _, rs in database.groups()] == pytest.approx([1.3, 1.5, 1.7, 1.9])
    states = database.metadata["states"]
    assert sorted(state["temperature_kelvin"] for state in states) == [4750.0, 6250.0, 7750.0, 9250.0]
    assert [state["temperature_kelvin"] for state in states] != [4750.0, 6250.0, 7750.0, 9250.0]
    assert database.metadata["region"] == {"rs": [1.2, 2.0], "temperature_kelvin": [4000, 10000]}
    assert main([*words, f"run_dir={tmp_path}"]) == 0
    assert "4 labels, 0 failed, 0 still to do" in capsys.readouterr().out


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a wavefunction of two densities."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    words = ["experiment=smoke", "trainer.accelerator=cpu", "logger=csv", "trainer.max_steps=1"]
    assert main(["fit", *words, "system.rs=[1.9,2.0]", f"run_dir={folder}"]) == 0
    return folder


def vmc_words(trained: Path) -> list[str]:
    words = ["label", "calculator=vmc", f"calculator.ckpt_path={trained}", "system.num_atoms=2", *SHORT]
    words += ["system.twists=[1,1,1]"]
    words += ["calculator.num_sweeps=4", "calculator.equilibration_sweeps=2", "calculator.num_electron_walkers=4"]
    return [*words, "label.num_configurations=2", "label.num_force_checks=0"]


@pytest.mark.parametrize("rs", [1.9, 2.0])
def test_a_trained_wavefunction_labels_at_its_densities(trained: Path, rs: float, tmp_path: Path) -> None:
    assert main([*vmc_words(trained), f"system.rs={rs}", f"run_dir={tmp_path}"]) == 0
    arrays = LabelDatabase.open(tmp_path / "labels.db").arrays(2, rs)
    assert len(arrays["energy"]) == 2
    assert (arrays["energy_error"] > 0).all()


def test_two_densities_of_a_trained_wavefunction_have_their_labels_or_are_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main([*vmc_words(trained), "system.rs=1.9", "label.rs=[1.9,2.0]", f"run_dir={tmp_path}"])
    printed = capsys.readouterr()
    assert "4 labels, 0 failed" in printed.out or (code == 2 and printed.err.count("\n") == 1)


def test_a_wavefunction_of_other_densities_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    for word, part in [
        ("system.rs=2.1", "is of num_atoms = 2, rs = [1.9, 2.0]; set system.num_atoms=2 system.rs=1.9, not 2 and 2.1"),
        ("system.num_atoms=4", "set system.num_atoms=2 system.rs=1.9, not 4 and"),
        (
            "system.rs=1.9 system.twists=[2,2,2]",
            f"are not the twists of the wavefunction in {trained}; set system.twists=[1, 1, 1]",
        ),
    ]:
        assert main([*vmc_words(trained), *word.split(), f"run_dir={tmp_path}"]) == 2
        error = capsys.readouterr().err
        assert part in error
        assert error.count("\n") == 1
        assert not list(tmp_path.iterdir())


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
    assert "0 labels, 0 failed, 2 still to do" in output
    assert "the same command continues" in output
    with pytest.raises(ProcessLookupError):
        os.kill(int(next(pids.iterdir()).name), 0)
    assert connect(tmp_path / "labels.db").count(state="pending") == 2
