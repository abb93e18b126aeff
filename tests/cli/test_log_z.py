"""`lightning-vfe log-z` from the command line: what it prints, writes and refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lightning_vfe.cli import main
from lightning_vfe.models.base.boltzmann import BoltzmannBase
from lightning_vfe.models.potential.storage import save_potential
from lightning_vfe.models.potential.yukawa import YukawaPotential
from lightning_vfe.physics.strata import Strata
from lightning_vfe.physics.system import System

QUICK = [
    "log_z.num_chains=4",
    "log_z.num_sweeps=40",
    "log_z.max_sweeps=60",
    "log_z.pilot_sweeps=10",
    "log_z.target_error_per_atom=0.2",
    "log_z.num_bootstraps=10",
    "device=cpu",
]


@pytest.fixture
def potential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stored potential in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    metadata = {"rs_range": [1.2, 1.3], "temperature_kelvin": 6000.0, "label": {}}
    save_potential(YukawaPotential(screening_length=0.6), tmp_path / "pair.pt", metadata)
    return tmp_path / "pair.pt"


def test_the_result_is_printed_and_stored_and_taken_by_the_base(potential: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["log-z", "potential.path=pair.pt", "system.num_atoms=2", *QUICK]
    code = main(words)
    printed = capsys.readouterr().out
    (entry,) = json.loads((potential.parent / "pair.log_z.json").read_text())["entries"]
    assert code == (0 if entry["converged"] else 1)
    assert f"ln Z                {entry['log_z']:.4f} +- {entry['log_z_error']:.4f}" in printed
    assert "Ha per atom" in printed
    assert "overlap" in printed
    assert (entry["num_atoms"], entry["rs"], entry["temperature_kelvin"]) == (2, 1.25, 6000.0)
    folder = potential.parent / "runs" / "log_z"
    assert (folder / "figures" / "overlap.png").stat().st_size > 5000
    assert (folder / "config.yaml").is_file()
    assert len(json.loads((folder / "integration.json").read_text())["windows"]) >= 3
    assert main([*words, "log_z_path=elsewhere/z.json", "system.temperature_kelvin=9000"]) in (0, 1)
    (other,) = json.loads(Path("elsewhere/z.json").read_text())["entries"]
    assert other["temperature_kelvin"] == 9000.0
    assert other["log_z"] > entry["log_z"]
    if entry["converged"]:
        base = BoltzmannBase.from_files(System(2), Strata.of(1.25, 6000.0), potential)
        assert base.log_z == entry["log_z"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["potential.path=none.pt"], "potential.path = none.pt: no such file"),
        (["system.rs=2.0"], "system.rs = 2.0 is outside the densities"),
        (["system.temperature_kelvin=-1.0"], "system.temperature_kelvin = -1.0 must be positive"),
        (["system.temperature_kelvin=inf"], "system.temperature_kelvin = inf must be positive and finite"),
        (["system.rs=[1.2,1.4]"], "system.rs = 1.4 is outside the densities"),
        (["log_z.num_chains=1"], "log_z.num_chains = 1 must be at least 2"),
        (["log_z.max_sweeps=5"], "log_z.max_sweeps = 5 must be at least log_z.num_sweeps = 150; raise it"),
        (["log_z.proposal=hop"], "log_z.proposal = hop is unknown"),
        (["device=tpu"], "device = tpu does not exist"),
        (["yukawa.cutoff=-1.0"], "yukawa.cutoff = -1.0 must be positive"),
        (["yukawa.cutoff=1000.0"], "yukawa.cutoff = 1000.0 must be positive and at most 25.39 bohr, 10 edges"),
    ],
)
def test_bad_input_is_one_line(potential: Path, words: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["log-z", "potential.path=pair.pt", "system.num_atoms=2", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(potential.parent.glob("*.json"))
    assert not Path("runs").exists()


def test_damaged_and_read_only_results_are_known_before_the_work(
    potential: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture
) -> None:
    words = ["log-z", "potential.path=pair.pt", "system.num_atoms=2"]
    (potential.parent / "pair.log_z.json").write_text("{")
    assert main(words) == 2
    assert "is damaged; delete it" in capsys.readouterr().err
    (potential.parent / "pair.log_z.json").unlink()
    for path, part in [("pair.pt/z.json", "pair.pt is a file"), (".", "is a folder"), ("/proc/z.json", "(")]:
        assert main([*words, f"log_z_path={path}"]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: log_z_path = {path} ")
        assert part in error
        assert error.count("\n") == 1
    if os.access("/proc/version", os.W_OK):
        return  # root may write everywhere
    run_dir = tmp_path_factory.mktemp("run")
    potential.parent.chmod(0o500)
    try:
        assert main([*words, f"run_dir={run_dir}"]) == 2
        assert "cannot be written (Permission denied); give another file with log_z_path" in capsys.readouterr().err
    finally:
        potential.parent.chmod(0o700)


def test_a_result_that_cannot_be_stored_is_kept(
    potential: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def full(path: Path, entry: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lightning_vfe.workflows.log_z.store_entry", full)
    assert main(["log-z", "potential.path=pair.pt", "system.num_atoms=2", *QUICK]) == 2
    error = capsys.readouterr().err
    assert "No space left" in error
    assert "ln Z is kept in runs/log_z/integration.json" in error
    assert "log_z" in json.loads(Path("runs/log_z/integration.json").read_text())
