"""Several state points in one run from the command line: files, tables, resume, processes, and mistakes."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from lightning_vfe.analysis.compare import COMPARED
from lightning_vfe.cli import main
from lightning_vfe.physics.units import KELVIN_TO_HARTREE, NUCLEAR_MASSES
from lightning_vfe.training.run.run_folder import CONFIG_KEY
from tests.helpers.ranks import assert_same_tables, fit_table, run_ranks
from tests.helpers.refusals import error_line

SMOKE = ["experiment=smoke", "trainer.accelerator=cpu", "logger=csv", "trainer.max_steps=2"]
GRID = ["system.rs=[1.9,2.0]", "system.temperature_kelvin=[4000,6000]"]
STATES = list(itertools.product([1.9, 2.0], [4000.0, 6000.0]))
SUFFIXES = ["rs1.9_T4000", "rs1.9_T6000", "rs2_T4000", "rs2_T6000"]
FIXED = ["sampler=fixed", "system.protons=fixed", "system.structure=bcc", "sampler.num_proton_walkers=4"]
FIXED += ["sampler.num_electron_walkers=4", "sampler.num_groups=2", "system.rs=[1.9,2.0]"]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a fit of four states."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert main(["fit", *SMOKE, *GRID, f"run_dir={folder}"]) == 0
    return folder


def fitted(*words: str) -> pd.DataFrame:
    """metrics.csv of a fit of one step in the folder `run`."""
    assert main(["fit", *SMOKE, "trainer.max_steps=1", "optimizer=adam", *words, "run_dir=run"]) == 0
    return pd.read_csv("run/metrics.csv")


def saved_fields(run: str = "run") -> dict[str, torch.Tensor]:
    """The fields of the walkers in the last checkpoint."""
    return torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True)["walkers"]["fields"]


# --- files and tables ------------------------------------------------------------------------------------------------


def test_metrics_have_a_column_for_each_state(trained: Path) -> None:
    table = pd.read_csv(trained / "metrics.csv")
    assert list(table.step) == [0, 1]
    terms = ["free_energy_per_atom", "energy_per_atom", "entropy_per_atom", "pressure_gpa", "local_energy_variance"]
    for term, suffix in itertools.product(terms, SUFFIXES):
        assert table[f"{term}@{suffix}"].notna().all()
    for suffix, (_, kelvin) in zip(SUFFIXES, STATES, strict=True):
        free_energy, energy, entropy = (table[f"{term}@{suffix}"] for term in terms[:3])
        assert (free_energy - energy + KELVIN_TO_HARTREE * kelvin * entropy).abs().max() < 1e-12
        assert (table[f"free_energy_per_atom_error@{suffix}"] > 0).all()
    assert not {"free_energy_per_atom", "energy_per_atom"} & set(table.columns), "no mean over the states"
    for name in ("proton_acceptance", "electron_acceptance", "proton_width_rs", "electron_width_rs", "electron_drift"):
        assert table[name].notna().all(), "the sweep is one for all states"


def test_the_result_of_every_state(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", f"run_dir={trained}"]) == 0
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines() if line.split()[1:2] in (["4000"], ["6000"])]
    assert [(float(row[0]), float(row[1])) for row in rows] == STATES
    assert "states" in printed
    assert "4: rs = 1.9, T = 4000 K; rs = 1.9, T = 6000 K; " in printed
    summary = json.loads((trained / "summary.json").read_text())
    assert summary["system"] == {
        "num_atoms": 2,
        "nucleus": "H",
        "protons": "sampled",
        "states": [list(state) for state in STATES],
    }
    assert [(state["rs"], state["temperature_kelvin"]) for state in summary["states"]] == STATES
    for state, row in zip(summary["states"], rows, strict=True):
        kT = KELVIN_TO_HARTREE * state["temperature_kelvin"]
        free_energy, energy, entropy = (state[f"{n}_per_atom"]["value"] for n in ("free_energy", "energy", "entropy"))
        assert free_energy == pytest.approx(energy - kT * entropy, abs=1e-12)
        base = -3 * kT * math.log(state["rs"] * (8 * math.pi / 3) ** (1 / 3))
        assert state["base_free_energy_per_atom"] == {"value": pytest.approx(base, abs=1e-12), "error": 0}
        assert state["pressure_gpa"]["error"] > 0
        assert state["diagnostics"]["effective_sample_size"] > 0
        assert float(row[2].partition("(")[0]) == pytest.approx(free_energy, abs=6e-4)
        assert row[-1] == ("yes" if state["converged"] else "NO")
    assert summary["step"] == 2
    assert not summary["converged"]
    assert "free_energy_per_atom" not in summary
    reasons = [(s["rs"], s["temperature_kelvin"], reason) for s in summary["states"] for reason in s["reasons"]]
    expected = [f"rs = {rs:g}, T = {kelvin:g} K: {reason}" for rs, kelvin, reason in reasons]
    assert expected
    assert summary["reasons"][: len(expected)] == expected
    assert set(summary["diagnostics"]) >= {"electron_acceptance", "electron_drift", "electron_drift_error"}
    table = pd.read_csv(trained / "pair_correlation.csv")
    assert list(table.columns[:3]) == ["rs", "temperature_kelvin", "r_bohr"]
    blocks = table.groupby(["rs", "temperature_kelvin"], sort=False)
    assert [key for key, _ in blocks] == STATES
    for (rs, _), block in blocks:  # distances reach to L/2 of each density
        half = 0.5 * rs * (8 * math.pi / 3) ** (1 / 3)
        width = block.r_bohr.diff().iloc[1]
        assert block.r_bohr.iloc[-1] + 0.5 * width == pytest.approx(half, rel=1e-9)
        assert block.proton_proton.notna().all()
        assert block.proton_electron.notna().all()
    for name in ("training", "terms", "pair_correlation", "structure_factor"):
        assert (trained / "figures" / f"{name}.png").stat().st_size > 10_000


def test_report_of_two_runs(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        words = [f"ckpt_path={trained / 'checkpoints' / 'last.ckpt'}", f"run_dir={name}", "datamodule.test_steps=2"]
        assert main(["test", *words]) == 0
    capsys.readouterr()
    assert main(["report", "runs=[a,b]", "run_dir=report"]) == 0
    table = pd.read_csv("report/comparison.csv")
    assert list(zip(table.rs, table.temperature_kelvin, table.run, strict=True)) == [
        (*state, run) for state in STATES for run in ("a", "b")
    ]
    assert (table.above_lowest_f.abs() < 1e-12).all(), "the same checkpoint twice"
    printed = capsys.readouterr().out
    assert all(printed.count(f"rs = {rs:g}, T = {kelvin:g} K; errors") == 1 for rs, kelvin in STATES)
    assert Path("report/comparison.png").stat().st_size > 10_000


# --- other ways to choose states and twists --------------------------------------------------------------------------


def test_pairs_of_density_and_temperature() -> None:
    table = fitted("system.states=[[1.9,4000],[2.0,6000]]")
    found = {column.partition("@")[2] for column in table.columns if "@" in column}
    assert found == {"rs1.9_T4000", "rs2_T6000"}
    fields = saved_fields()
    assert fields["stratum"].tolist() == 4 * [0, 1]
    assert fields["rs"].tolist() == 4 * [1.9, 2.0]
    assert fields["kT"].tolist() == pytest.approx([KELVIN_TO_HARTREE * kelvin for kelvin in 4 * [4000, 6000]])


def test_one_pair_is_one_state_point() -> None:
    """Bit for bit the run that the two keys would make."""
    table = fitted("system.states=[[1.9,4000]]")
    shutil.move("run", "pair")
    pd.testing.assert_frame_equal(table, fitted("system.rs=1.9", "system.temperature_kelvin=4000"), check_exact=True)


def test_fixed_protons_at_two_densities(capsys: pytest.CaptureFixture[str]) -> None:
    """The same crystal at both: in units of rs it has the same Coulomb energy."""
    table = fitted(*FIXED)
    dense, thin = (table[f"v_pp_per_atom@{suffix}"] for suffix in ("rs1.9", "rs2"))
    assert (1.9 * dense - 2.0 * thin).abs().max() < 1e-12
    assert (table["free_energy_per_atom@rs1.9"] == table["energy_per_atom@rs1.9"]).all()
    capsys.readouterr()
    assert main(["test", "run_dir=run"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.split()[-1:] in (["yes"], ["NO"])]
    assert [float(row[0]) for row in rows] == [1.9, 2.0]
    states = json.loads(Path("run/summary.json").read_text())["states"]
    assert [state["rs"] for state in states] == [1.9, 2.0]
    assert "temperature_kelvin" not in states[0]
    assert all(state["entropy_per_atom"]["value"] == 0 for state in states)


def test_the_mass_of_the_nuclei_changes_their_momenta_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """F of deuterium is lower by 3/2 kT ln(m_D / m_H), on the same walkers."""
    deuterium = fitted("system.nucleus=D")
    assert "deuterium, N = 2" in capsys.readouterr().out
    shutil.move("run", "deuterium")
    hydrogen = fitted()
    shift = -1.5 * KELVIN_TO_HARTREE * 6000.0 * math.log(NUCLEAR_MASSES["D"] / NUCLEAR_MASSES["H"])
    found = deuterium.free_energy_per_atom - hydrogen.free_energy_per_atom
    assert found.tolist() == pytest.approx([shift], abs=1e-12)
    assert deuterium.energy_per_atom.tolist() == hydrogen.energy_per_atom.tolist()
    shutil.move("run", "hydrogen")
    mass = fitted(f"system.nucleus={NUCLEAR_MASSES['D']}")
    assert mass.free_energy_per_atom.tolist() == deuterium.free_energy_per_atom.tolist()


def test_the_mean_value_point(capsys: pytest.CaptureFixture[str]) -> None:
    fitted("system.twists=baldereschi")
    assert torch.equal(saved_fields()["twist"], torch.full((8, 3), 0.25, dtype=torch.float64))
    capsys.readouterr()
    shutil.move("run", "named")
    fitted("system.twists=[[0.25,0.25,0.25]]")
    first, second = (pd.read_csv(f"{run}/metrics.csv") for run in ("named", "run"))
    pd.testing.assert_frame_equal(first, second, check_exact=True)


def test_random_twists_are_drawn_in_every_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    fitted("system.twists=random", *GRID)
    assert "random, drawn in every sweep" in capsys.readouterr().out
    first = saved_fields()
    assert first["stratum"].tolist() == 2 * [0, 1, 2, 3]
    assert len(first["twist"].unique(dim=0)) == 8
    assert (first["twist"] > -0.5).all()
    assert (first["twist"] <= 0.5).all()
    assert main(["fit", "run_dir=run", "ckpt_path=last", "trainer.max_steps=2"]) == 0
    second = saved_fields()
    assert (second["twist"] != first["twist"]).all()
    assert torch.equal(second["rs"], first["rs"])
    assert main(["test", "run_dir=run", "datamodule.test_steps=3"]) == 0
    assert len(json.loads(Path("run/summary.json").read_text())["states"]) == 4


def test_twists_that_stand_for_others(capsys: pytest.CaptureFixture[str]) -> None:
    """[2, 2, 1] has the twists (+-1/4, +-1/4, 0): two of them up to the sign, one up to rotations."""
    fitted("system.twists=[2,2,1]", "system.twist_symmetry=time_reversal")
    assert "2, reduced by time_reversal" in capsys.readouterr().out
    twist = saved_fields()["twist"]
    assert (twist.abs() == torch.tensor([0.25, 0.25, 0.0])).all()
    assert len(twist.unique(dim=0)) == 2
    assert len((twist[:, 0] * twist[:, 1]).unique()) == 2, "no two are f and -f"
    shutil.move("run", "time_reversal")
    fitted("system.twists=[2,2,1]", "system.twist_symmetry=cubic")
    assert "1, reduced by cubic" in capsys.readouterr().out
    assert len(saved_fields()["twist"].unique(dim=0)) == 1


def test_a_shifted_grid_of_twists() -> None:
    fitted("system.twists=[2,1,1]", "system.twist_shift=[0.5,0,0]")
    assert sorted(saved_fields()["twist"].unique(dim=0).tolist()) == [[0.0, 0.0, 0.0], [0.5, 0.0, 0.0]]


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["base=schnet", "system.rs=[1.9,2.0]"], ["system.rs = 1.9 is outside the densities", "base=uniform"]),
        (
            ["base=schnet", "system.num_atoms=8", "system.rs=1.25", "system.temperature_kelvin=[4000,6000]"],
            ["has no ln Z for N=8 rs=1.25 T=4000 K", "base=uniform"],
        ),
        (["system.temperature_kelvin=[4000,-1]"], ["system.temperature_kelvin = -1", "positive"]),
        (["system.temperature_kelvin=[]"], ["system.temperature_kelvin = []"]),
        (["system.rs=[1.9,0]"], ["system.rs = 0", "positive"]),
        (["system.rs=[1.9,thin]"], ["system.rs = [1.9, 'thin']", "a list of numbers"]),
        (["system.rs=[]"], ["system.rs = []", "[1.2,1.3]"]),
        (["system.states=[[1.9]]"], ["system.states = [[1.9]]: [1.9] is no pair"]),
        (["system.states=[]"], ["system.states = [] holds no state point"]),
        (["system.states=[[1.9,4000],[2.0,0]]"], ["= 0 must be positive"]),
        (["system.states=[[1.9,4000],[1.9,4000.0]]"], ["system.states = ", "holds rs = 1.9, T = 4000 K twice"]),
        (["system.rs=[1.9,1.9]"], ["system.rs = [1.9, 1.9] holds 1.9 twice"]),
        (["system.nucleus=He"], ["system.nucleus = He", "H (1836.15), D (3670.48), T"]),
        (["system.nucleus=1"], ["system.nucleus = 1 must be", "100 electron masses"]),
        (["system.twist_symmetry=mirror"], ["system.twist_symmetry = mirror", "none, time_reversal or cubic"]),
        (["system.twists=[[0,0,0],[0.25,0,0]]", "system.twist_shift=[0.5,0,0]"], ["system.twist_shift = [0.5, 0, 0]"]),
        (["system.twists=random", "system.twist_shift=[0.5,0,0]"], ["system.twist_shift = [0.5, 0, 0]"]),
        (["system.twists=gamma"], ["system.twists = gamma", "baldereschi and random"]),
        ([*FIXED, "system.temperature_kelvin=[4000,6000]"], ["system.temperature_kelvin = [4000, 6000]", "fixed"]),
        ([*FIXED, "system.structure=n2_mol_rs2"], ["system.structure = ", "system.rs"]),
        ([*GRID, "sampler.num_proton_walkers=6", "sampler.num_groups=2"], ["sampler.num_proton_walkers = 6", "8"]),
        ([*GRID, "sampler.num_proton_walkers=4"], ["sampler.num_proton_walkers = 4 must be at least 8"]),
    ],
)
def test_mistakes_end_in_one_line(words: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    error = error_line(["fit", *SMOKE, *words], capsys)
    assert all(part in error for part in parts), error


@pytest.mark.parametrize(
    "word", ["system.rs=[1.2,1.3]", "system.temperature_kelvin=[4000,6000]", "system.states=[[1.2,4000],[1.3,600]]"]
)
def test_label_takes_no_grid(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = error_line(["label", word, "calculator=ase"], capsys)
    assert ("label.num_atoms and label.rs list the states" if "states" in word else "give one") in error


def test_log_z_of_several_states_stays_in_the_region(capsys: pytest.CaptureFixture[str]) -> None:
    assert "system.rs = 1.2 is outside the densities" in error_line(["log-z", "system.rs=[1.2,1.3]"], capsys)


def test_a_flow_is_fitted_to_data_of_one_state_point(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "experiment=flow_mle_rs1p25_6000K", "trainer.accelerator=cpu", "system.rs=[1.2,1.3]"]
    assert "system.rs = [1.2, 1.3] must be a number" in error_line(words, capsys)


def test_networks_of_another_system_are_a_start(capsys: pytest.CaptureFixture[str]) -> None:
    """Other N, density, twist, plane waves and walkers: psi and flow are those of the run, not the occupations."""
    fitted()
    shutil.move("run", "one")
    other = ["system.num_atoms=4", "system.rs=1.4", "system.twists=baldereschi", "wavefunction.num_plane_waves=27"]
    other += ["sampler.num_proton_walkers=16", "init_from=one"]
    still = ["optimizer.flow_learning_rate=1e-30", "optimizer.wavefunction_learning_rate=1e-30"]
    fitted(*other, *still)
    assert "wavefunction and flow start from" in capsys.readouterr().out.replace("\n", " ")
    one, two = (torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in ("one", "run"))
    names = [name for name in one if name.startswith(("wavefunction.", "proton_density.flow."))]
    same = [one[name].shape == two[name].shape and bool((one[name] - two[name]).abs().max() < 1e-12) for name in names]
    changed = [name for name, kept in zip(names, same, strict=True) if not kept]
    assert {name.removeprefix("wavefunction.envelope.") for name in changed} == {"log_occupation", "occupation_power"}
    assert two["wavefunction.envelope.log_occupation"].abs().max() < 1e-12
    assert main(["fit", "run_dir=run", "ckpt_path=last", "trainer.max_steps=2"]) == 0  # goes on from its own checkpoint


def test_a_start_that_does_not_fit_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    fitted()
    shutil.move("run", "one")
    words = ["fit", *SMOKE, "init_from=one"]
    assert "wavefunction.single_width = 6 here but" in error_line([*words, "wavefunction.single_width=6"], capsys)
    assert "init_from = none does not exist" in error_line([*words[:-1], "init_from=none"], capsys)


def test_the_flow_of_one_state_is_a_start_for_two() -> None:
    fitted("system.rs=1.95")
    shutil.move("run", "one")
    fitted("system.rs=[1.9,2.0]", "flow_ckpt=one/checkpoints/last.ckpt", "optimizer.flow_learning_rate=1e-30")
    one, two = (torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in ("one", "run"))
    names = [name for name in one if name.startswith("proton_density.flow.")]
    assert names
    assert all(torch.allclose(one[name], two[name], rtol=0, atol=1e-12) for name in names)


def test_a_run_of_other_states_is_not_measured(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for word, part in [
        ("system.rs=[1.9,2.1]", "system.rs = [1.9, 2.1] here but [1.9, 2.0] in the checkpoint"),
        ("system.rs=1.9", "system.rs = 1.9 here but [1.9, 2.0] in the checkpoint"),
        ("system.states=[[1.9,4000]]", "system.states = [[1.9, 4000]] here but None"),
        ("system.nucleus=D", "system.nucleus = D here but H"),
    ]:
        assert part in error_line(["test", f"run_dir={trained}", word], capsys)


# --- runs of another layout ------------------------------------------------------------------------------------------


def as_of_old(trained: Path, folder: Path) -> Path:
    """A run folder as the version before wrote it: neither its config nor its checkpoint names a schema."""
    shutil.copytree(trained, folder)
    config = OmegaConf.load(folder / "config.yaml")
    assert config.pop("schema") == 2
    OmegaConf.save(config, folder / "config.yaml")
    content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    content["MCMCDataModule"] = content.pop("walkers")["fields"]
    content[CONFIG_KEY] = OmegaConf.to_yaml(config)
    (folder / "checkpoints" / "last.ckpt").unlink()
    torch.save(content, folder / "checkpoints" / "last.ckpt")
    return folder


@pytest.mark.parametrize(
    "words", [["fit", "ckpt_path=last", "trainer.max_steps=9"], ["fit", "ckpt_path=auto"], ["validate"], ["test"]]
)
def test_a_run_of_the_old_layout_is_refused(
    trained: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    old, (verb, *settings) = as_of_old(trained, Path("old")), words
    error = error_line([verb, f"run_dir={old}", *settings], capsys)
    assert "old was made by another version of lightning-vfe (its config has schema 1" in error
    assert "start a new run with fit" in error
    # the checkpoint alone, and one beside a config that has been written anew
    shutil.move("old/checkpoints/last.ckpt", "alone.ckpt")
    error = error_line([verb, "ckpt_path=alone.ckpt", "run_dir=new", *(s for s in settings if "max" in s)], capsys)
    assert "made by another version" in error
    shutil.copy(trained / "config.yaml", "old/config.yaml")
    shutil.move("alone.ckpt", "old/checkpoints/last.ckpt")
    assert "made by another version" in error_line([verb, f"run_dir={old}", *settings], capsys)


@pytest.mark.parametrize(
    "words",
    [
        ["fit", *SMOKE, "flow_ckpt=old/checkpoints/last.ckpt"],
        ["label", "calculator=vmc", "calculator.ckpt_path=old", "system.num_atoms=2", "system.rs=1.9"],
    ],
)
def test_networks_of_the_old_layout_are_refused(
    trained: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    as_of_old(trained, Path("old"))
    assert "made by another version of lightning-vfe" in error_line(words, capsys)


def test_a_checkpoint_without_walkers_is_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content: dict[str, Any] = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)
    del content["walkers"]
    torch.save(content, "bare.ckpt")
    assert main(["fit", "ckpt_path=bare.ckpt", "run_dir=run", "trainer.max_steps=9"]) == 2
    error = capsys.readouterr().err
    assert "holds no walkers; give one that fit wrote" in error
    assert error.count("\n") == 1


# --- resume, and processes -------------------------------------------------------------------------------------------

# four strata with two walkers each; saved at step 4, in the middle of an epoch
MIXED = [*SMOKE[:3], "system.states=[[1.9,4000],[2.0,6000]]", "system.twists=[2,1,1]", "sampler.num_groups=4"]
MIXED += ["sampler.chain_precision=float64", "optimizer=natural_gradient", "datamodule.steps_per_epoch=3"]
MIXED += ["trainer.max_steps=8", "callbacks.checkpoint.every_n_steps=4"]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Run folders of the same run on one and on two processes."""
    folders = {ranks: tmp_path_factory.mktemp(f"ranks{ranks}") / "run" for ranks in (1, 2)}
    for ranks, folder in folders.items():
        fit_table(MIXED, ranks, folder)
    return folders


def rows_of(run: Path, first: int = 0) -> pd.DataFrame:
    table = pd.read_csv(run / "metrics.csv").drop(columns="checksum")
    return table[table.step >= first].reset_index(drop=True)


def assert_same_ends(first: Path, second: Path, tolerance: float) -> None:
    """Parameters and walkers of the last checkpoints."""
    ends = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (first, second)]
    for part in (lambda end: end["state_dict"], lambda end: end["walkers"]["fields"]):
        one, other = map(part, ends)
        assert set(one) == set(other)
        for name, value in one.items():
            largest = (value - other[name]).abs().max() if value.numel() else 0
            assert largest <= tolerance, f"{name}: largest difference {largest:.1e}"
    assert ends[0]["walkers"]["random"]["groups"] == ends[1]["walkers"]["random"]["groups"] == [0, 1, 2, 3]


def test_mixed_states_on_two_processes_are_those_on_one(mixed: dict[int, Path]) -> None:
    tables = [rows_of(run) for run in mixed.values()]
    assert len(tables[0]) == 8
    assert "free_energy_per_atom@rs1.9_T4000" in tables[0]
    assert_same_tables(*tables)
    assert_same_ends(mixed[1], mixed[2], 1e-10)


@pytest.mark.parametrize("ranks", [1, 2])
def test_mixed_states_resume(mixed: dict[int, Path], tmp_path: Path, ranks: int) -> None:
    """On as many processes bit for bit, on another number up to the order of sums."""
    start = mixed[2] / "checkpoints" / "step-00000004.ckpt"
    table, expected = fit_table([f"ckpt_path={start}"], ranks, tmp_path / "run"), rows_of(mixed[2], first=4)
    if ranks == 2:
        pd.testing.assert_frame_equal(table, expected, check_exact=True)
    assert_same_tables(table, expected)
    assert_same_ends(mixed[2], tmp_path / "run", 0.0 if ranks == 2 else 1e-10)


def test_results_of_mixed_states_do_not_depend_on_the_number_of_processes(
    mixed: dict[int, Path], tmp_path: Path
) -> None:
    summaries, pairs, factors = [], [], []
    for ranks in (1, 2):
        folder = tmp_path / f"{ranks}"
        words = ["test", f"ckpt_path={mixed[1] / 'checkpoints' / 'last.ckpt'}", f"run_dir={folder}"]
        run_ranks(words, ranks, folder)
        summaries.append(json.loads((folder / "summary.json").read_text()))
        pairs.append(pd.read_csv(folder / "pair_correlation.csv"))
        factors.append(pd.read_csv(folder / "structure_factor.csv"))
    for one, other in zip(*(summary["states"] for summary in summaries), strict=True):
        for name in (*COMPARED, "molecular_fraction"):
            for part in ("value", "error"):
                assert one[name][part] == pytest.approx(other[name][part], abs=1e-10), name
    assert_same_tables(*pairs)
    assert_same_tables(*factors)


def test_random_twists_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    """They belong to the walker groups, and resume with them."""
    words = ["system.twists=random" if word.startswith("system.twists") else word for word in MIXED]
    folders = {ranks: tmp_path / f"{ranks}" / "run" for ranks in (1, 2)}
    assert_same_tables(*(fit_table(words, ranks, folder) for ranks, folder in folders.items()))
    assert_same_ends(folders[1], folders[2], 1e-10)
    start = folders[1] / "checkpoints" / "step-00000004.ckpt"
    table = fit_table([f"ckpt_path={start}"], 1, tmp_path / "resumed" / "run")
    pd.testing.assert_frame_equal(table, rows_of(folders[1], first=4), check_exact=True)
    assert_same_ends(folders[1], tmp_path / "resumed" / "run", 0.0)
