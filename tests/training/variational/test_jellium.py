"""Runs without protons: what the files of fit and test hold, and what they leave out."""

import json
import math
from pathlib import Path

import lightning as L
import pandas as pd
import pytest

import lightning_vfe as lv

OVERRIDES = (
    "experiment=jellium14_rs5",
    "system.num_atoms=2",
    "system.twists=[[0.25,0.1,-0.3]]",
    "wavefunction.num_layers=1",
    "wavefunction.single_width=4",
    "wavefunction.pair_width=4",
    "sampler.num_proton_walkers=2",
    "sampler.num_electron_walkers=8",
    "sampler.num_groups=2",
    "trainer.max_steps=2",
    "trainer.accelerator=cpu",
    "datamodule.equilibration_steps=2",
    "datamodule.test_steps=8",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has been trained and measured."""
    run_dir = tmp_path_factory.mktemp("jellium") / "run"
    L.seed_everything(1, verbose=False)
    lv.fit(*OVERRIDES, run_dir=run_dir)
    lv.test(run_dir=run_dir)
    return run_dir


def test_terms_of_protons_are_absent(folder: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["system"] == {"num_atoms": 2, "protons": "none", "rs": 5.0}
    terms = {name for name, content in summary.items() if isinstance(content, dict) and "value" in content}
    assert terms == {
        "free_energy_per_atom",
        "energy_per_atom",
        "kinetic_energy_per_atom",
        "v_ee_per_atom",
        "pressure_gpa",
    }
    assert summary["free_energy_per_atom"] == summary["energy_per_atom"]  # a ground state
    total = summary["kinetic_energy_per_atom"]["value"] + summary["v_ee_per_atom"]["value"]
    assert summary["energy_per_atom"]["value"] == pytest.approx(total)
    assert not summary["published"]
    columns = set(pd.read_csv(folder / "metrics.csv").columns)
    assert not {"entropy_per_atom", "v_pp_per_atom", "v_pe_per_atom"} & columns


def test_curves_of_protons_are_absent(folder: Path) -> None:
    run = lv.load(folder)
    assert list(run.structure_factor) == ["electron_electron", "electron_electron_error"]
    assert list(run.pair_correlation) == ["electron_electron_unlike", "electron_electron_unlike_error"]
    assert run.state.current().protons.shape == (2, 0, 3)
    figures = {file.name for file in (folder / "figures").glob("*.png")}
    assert {"training.png", "terms.png", "pair_correlation.png", "structure_factor.png"} <= figures
    assert "jellium" in run.plot_terms().get_suptitle()


def test_momentum_distribution(folder: Path) -> None:
    """Both electrons at k = 2 pi twist / L: a determinant of one plane wave, nearly."""
    run = lv.load(folder)
    table = run.momentum_distribution
    assert list(table) == ["n", "n_error", "multiplicity"]
    length = run.state.system.cell.length * 5.0
    assert table.index[0] == pytest.approx(2.0 * math.pi / length * math.hypot(0.25, 0.1, 0.3), rel=1e-5)
    assert table["n"].iloc[0] > 0.7
    assert (folder / "figures" / "momentum_distribution.png").is_file()
    assert run.plot_momentum_distribution().axes[0].get_ylabel() == "$n(k)$"


def test_validate_gives_tables_and_writes_nothing(folder: Path) -> None:
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    found = lv.validate("datamodule.validation_steps=2", run_dir=folder)
    assert found.messages
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before


def test_no_momentum_distribution(folder: Path) -> None:
    """The key switches it off; the chains are the same with and without it."""
    with_it = json.loads((folder / "summary.json").read_text())
    lv.test("module.momentum_points=0", run_dir=folder)
    assert not (folder / "momentum_distribution.csv").exists()
    assert json.loads((folder / "summary.json").read_text())["energy_per_atom"] == with_it["energy_per_atom"]


def test_a_resumed_run_goes_on(folder: Path) -> None:
    lv.fit(f"ckpt_path={folder / 'checkpoints' / 'last.ckpt'}", "trainer.max_steps=3", run_dir=folder)
    assert lv.load(folder).step == 3
