"""summary.json, pair_correlation.csv and the printed table, of one state point and of several."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from lightning_vfe.analysis.folder import tables_folder
from lightning_vfe.analysis.run import RunFolder, results_table
from lightning_vfe.analysis.terms import TERMS as NAMES
from lightning_vfe.physics.finite_size import two_body_corrections
from lightning_vfe.physics.observables import RadialDistribution
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.static_structure import KINDS
from lightning_vfe.physics.statistics import Estimate
from lightning_vfe.training.variational.callbacks import WriteSummary
from lightning_vfe.training.variational.result_table import result_tables
from lightning_vfe.training.variational.state_result import StateResult
from lightning_vfe.training.variational.summary import MeasurementInfo, TestResult
from tests.helpers.variational import build_run
from tests.training.variational.test_module import FIXED, trainer

TERMS = ["free_energy", "energy", "kinetic_energy", "electron_kinetic_energy", "v_pp", "v_pe", "v_ee", "entropy"]
OF_THE_MAP = ["base_free_energy", "base_energy", "log_det"]
FINITE_SIZE = [
    f"finite_size_{name}"
    for name in (
        "free_energy_per_atom",
        "energy_per_atom",
        "kinetic_energy_per_atom",
        "potential_energy_per_atom",
        "pressure_gpa",
    )
]
OF_ALL = {
    "local_energy_variance",
    "electron_acceptance",
    "electron_width_rs",
    "electron_drift",
    "electron_drift_error",
    "electron_gain",
    "electron_memory",
    "electron_steps",
    "num_stranded",
    "r_hat",
    "autocorrelation_time",
    "effective_sample_size",
    "largest_share",
    "discarded_steps",
    "equilibration_steps",
    "drifting_terms",
}
OF_PROTONS = {"proton_acceptance", "proton_width_rs", "negative_determinants"}
CEIMC = {"proton_sampling": "ceimc", "ceimc_electron_walkers": 8}
OF_ENERGIES = {f"ceimc_{name}" for name in ("acceptance", "noise", "noise_per_freedom", "penalty", "failed_warps")}
PAIRS = ["proton_proton", "proton_electron", "electron_electron_unlike"]


def show(result: TestResult) -> None:
    """Print what `test` shows."""
    for message in result_tables(result):
        Console().print(message, soft_wrap=True)


@pytest.mark.parametrize(
    ("keys", "moves", "added"),
    [
        ({}, {}, OF_PROTONS),
        ({}, {"proton_sampling": "direct"}, OF_PROTONS | {"num_failed_inversions", "unreached_fraction"}),
        ({}, {"proton_sampling": "delayed"}, OF_PROTONS | {"delayed_acceptance"}),
        ({}, CEIMC, OF_PROTONS | OF_ENERGIES),
        (FIXED, {}, set()),
    ],
    ids=["metropolis", "direct", "delayed", "ceimc", "fixed"],
)
def test_layout_of_one_state(tmp_path: Path, keys: dict, moves: dict, added: set[str]) -> None:
    """Files of users rely on it: every name at its place, and no other."""
    module, datamodule = build_run(keys, moves)
    trainer(1, WriteSummary(tmp_path)).test(module, datamodule, verbose=False)
    folder = tables_folder(tmp_path, moves.get("proton_sampling", ""))
    content = json.loads((folder / "summary.json").read_text())
    terms = [f"{name}_per_atom" for name in [*TERMS, *([] if keys else OF_THE_MAP)]] + ["pressure_gpa"]
    terms += [] if keys else ["molecular_fraction"]
    last = ["bracket"] if moves != CEIMC else []  # chains of exp(-E/kT) say nothing of F
    last += ["error_budget", *([] if keys else ["correlations"])]
    last += ["diagnostics", "converged", "reasons", "published"]
    last += ["verdicts", "units", "provenance", "checksum"]
    assert list(content) == ["system", "step", "trainings", "measurement", *terms, *last]
    assert content["trainings"] == 1
    assert content["units"] == {name: NAMES[name].unit for name in terms}
    assert set(content["provenance"]) == {"version", "command", "date"}
    assert content["verdicts"]["sampling"] == {"ok": content["converged"], "reasons": content["reasons"]}
    assert content["verdicts"]["training"]["ok"] is None
    assert content["measurement"] == {"seed": 42, "training_seed": 42, "steps": 8, "ended_by": "test_steps"}
    assert list(content["error_budget"]) == [f"{name}_per_atom" for name in ("free_energy", "energy", "entropy")] + [
        "pressure_gpa"
    ]
    for name, parts in content["error_budget"].items():
        assert list(parts) == ["statistical", "log_z", "unreached_fraction"]
        if content[name]["error"] is not None:
            assert content[name]["error"] == pytest.approx(math.hypot(*parts.values()), rel=1e-12)
    system = {"num_atoms": 2, "nucleus": "H", "rs": 2.0, "protons": "fixed" if keys else "sampled"}
    assert content["system"] == system | ({} if keys else {"temperature_kelvin": 6000.0})
    assert all(set(content[name]) == {"value", "error"} for name in terms)
    assert set(content["diagnostics"]) == OF_ALL | added
    assert all(isinstance(value, float | int) or value is None for value in content["diagnostics"].values())
    with (folder / "pair_correlation.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["r_bohr", *(column for name in PAIRS for column in (name, f"{name}_error"))]
    assert {len(row) for row in rows} == {7}
    with (folder / "structure_factor.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["k_per_bohr", *(column for name in KINDS for column in (name, f"{name}_error"))]
    assert float(rows[1][0]) == pytest.approx(2 * math.pi / StatePoint(2.0).cell(2).length)


def test_corrections_stand_beside_the_terms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the table with unit and error, and in no other number."""
    result = result_at(POINTS[1], -1.0)
    result.finite_size = two_body_corrections(POINTS[1], 16)
    assert [name for name in result.terms() if name.startswith("finite_size")] == FINITE_SIZE
    assert result.terms()["energy_per_atom"] == {"value": -1.0, "error": 0.01}
    found = result.terms()["finite_size_energy_per_atom"]
    assert found["value"] == pytest.approx(math.sqrt(3 / 1.3**3) / 32 - 0.3324 / 1.3**2 / 16 ** (4 / 3), rel=1e-4)
    assert found["error"] is None
    assert (found["unit"], found["method"]) == ("Ha", "plasmon")
    test_result = TestResult({"num_atoms": 16}, 30, [result], SOUND)
    show(test_result)
    shown = capsys.readouterr().out
    (line,) = (line for line in shown.splitlines() if "finite-size correction of E, two-body" in line)
    assert f"{found['value']:.5f}" in line
    assert "in no other row" in " ".join(shown.split())
    test_result.write(tmp_path)
    run = RunFolder(tmp_path)
    assert run.result("finite_size_energy_per_atom")[0] == found["value"]
    assert results_table(run).loc["finite_size_pressure_gpa", "unit"] == "GPa"


def result_at(point: StatePoint, value: float, r_hat: float = 1.0, negative: float = 0.0) -> StateResult:
    """A result whose terms all have one value."""
    names = [f"{name}_per_atom" for name in [*TERMS, *OF_THE_MAP]] + ["pressure_gpa"]
    found = Estimate(value, 0.01, 2.0, 500.0, r_hat)
    r = np.array([0.5, 1.0]) * point.rs
    radial = {"proton_proton": RadialDistribution(r, np.array([value, 1.0]), np.array([0.1, math.nan]))}
    diagnostics = {"local_energy_variance": 0.1, "negative_determinants": negative}
    budget = {"entropy_per_atom": {"statistical": 0.008, "log_z": 0.006}}
    return StateResult(point, dict.fromkeys(names, found), diagnostics, radial, budget=budget)


POINTS = [StatePoint(1.2, 4000.0), StatePoint(1.3, 6000.0)]
WANTED = {"free_energy_per_atom": 0.02}
SOUND = {"num_stranded": 0.0, "electron_drift": 0.0, "electron_drift_error": 0.001, "electron_acceptance": 0.5}


def test_layout_of_several_states(tmp_path: Path) -> None:
    """A list of what one state has, each with its density and temperature, and what they have in common."""
    states = [result_at(POINTS[0], -1.0), result_at(POINTS[1], -2.0)]
    system = {"num_atoms": 2, "nucleus": "H", "protons": "sampled", "states": [[1.2, 4000.0], [1.3, 6000.0]]}
    how = MeasurementInfo(7, 42, 50, "target_error", WANTED)
    TestResult(system, 30, states, SOUND, how).write(tmp_path)
    content = json.loads((tmp_path / "summary.json").read_text())
    first = ["system", "step", "trainings", "measurement", "states"]
    assert list(content) == [*first, "diagnostics", "converged", "reasons", "units", "checksum"]
    assert content["measurement"] == {
        "seed": 7,
        "training_seed": 42,
        "steps": 50,
        "ended_by": "target_error",
        "target_error": WANTED,
    }
    assert content["system"] == system
    assert content["step"] == 30
    assert content["diagnostics"] == SOUND
    assert content["converged"]
    assert content["reasons"] == []
    for point, own, value in zip(POINTS, content["states"], (-1.0, -2.0), strict=True):
        one = TestResult(system, 30, [result_at(point, value)], SOUND).as_dict()
        terms = {name: term for name, term in one.items() if isinstance(term, dict) and "value" in term}
        assert len(terms) == 12
        assert terms["energy_per_atom"] == {"value": value, "error": 0.01}
        place = {"rs": point.rs, "temperature_kelvin": point.temperature_kelvin}
        verdict = {"converged": True, "reasons": [], "published": []}
        budget = {"error_budget": one["error_budget"]}
        assert budget["error_budget"]["entropy_per_atom"] == {"statistical": 0.008, "log_z": 0.006}
        assert own == place | terms | budget | {"diagnostics": own["diagnostics"]} | verdict
        assert own["diagnostics"] | SOUND == one["diagnostics"]
    with (tmp_path / "pair_correlation.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["rs", "temperature_kelvin", "r_bohr", "proton_proton", "proton_proton_error"]
    assert [[float(cell) for cell in row[:4]] for row in rows[1:]] == [
        [1.2, 4000.0, 0.6, -1.0],
        [1.2, 4000.0, 1.2, 1.0],
        [1.3, 6000.0, 0.65, -2.0],
        [1.3, 6000.0, 1.3, 1.0],
    ]


def test_ground_states_have_no_temperature() -> None:
    states = [result_at(StatePoint(rs), -1.0) for rs in (1.2, 1.3)]
    found = TestResult({}, 0, states, SOUND).as_dict()["states"]
    assert [state["rs"] for state in found] == [1.2, 1.3]
    assert not any("temperature_kelvin" in state for state in found)


def test_a_state_that_has_not_converged_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    states = [result_at(POINTS[0], -1.0), result_at(POINTS[1], -2.0, r_hat=1.2)]
    result = TestResult({}, 0, states, SOUND)
    content = result.as_dict()
    assert [state["converged"] for state in content["states"]] == [True, False]
    assert not content["converged"]
    (reason,) = content["reasons"]
    assert reason.startswith("rs = 1.3, T = 6000 K: R-hat = 1.200 is above")
    assert content["states"][1]["reasons"] == [reason.split(": ", 1)[1]]
    show(result)
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines() if line.split()[:1] in (["1.2"], ["1.3"])]
    assert [(row[:2], row[-1]) for row in rows] == [(["1.2", "4000"], "yes"), (["1.3", "6000"], "NO")]
    assert f"NOT CONVERGED: {reason}" in printed.replace("\n", " ")


def test_two_steps_are_too_few_for_r_hat() -> None:
    (reason,) = result_at(POINTS[0], -1.0, r_hat=math.nan).reasons
    assert reason == "too few steps are measured for R-hat; raise datamodule.test_steps, to at least 4"


def test_a_folding_map_costs_its_own_state_the_free_energy(capsys: pytest.CaptureFixture[str]) -> None:
    result = TestResult({}, 0, [result_at(POINTS[0], -1.0), result_at(POINTS[1], -2.0, negative=1e-3)], SOUND)
    sound, folded = result.as_dict()["states"]
    for name in ("free_energy_per_atom", "entropy_per_atom"):
        assert sound[name] == {"value": -1.0, "error": 0.01}
        assert folded[name] == {"value": None, "error": None}
    assert folded["energy_per_atom"] == {"value": -2.0, "error": 0.01}
    assert sound["converged"]
    assert not folded["converged"]
    show(result)
    assert "the map folds" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ({"unreached_fraction": 0.02}, "could not be inverted for a fraction 0.02 of the base protons"),
        ({"num_stranded": 1.0}, "chains stand where the density is zero"),
        ({"electron_drift": 0.2}, "the electrons have not settled"),
    ],
)
def test_trouble_of_the_chains_is_that_of_all_states(trouble: dict, message: str) -> None:
    states = [result_at(POINTS[0], -1.0), result_at(POINTS[1], -2.0)]
    content = TestResult({}, 0, states, SOUND | trouble).as_dict()
    assert not content["converged"]
    assert not any(state["converged"] for state in content["states"])
    (reason,) = content["reasons"]
    assert reason.startswith(("the", "chains"))
    assert message in reason
    for name in ("free_energy_per_atom", "energy_per_atom"):
        assert all(state[name]["value"] is not None for state in content["states"])


def test_folds_and_few_unreached_protons_of_direct_sampling_are_noted(capsys: pytest.CaptureFixture[str]) -> None:
    state = result_at(POINTS[0], -1.0, negative=1e-3)
    state = StateResult(state.point, state.estimates, state.diagnostics, state.radial, is_direct=True)
    result = TestResult({}, 0, [state], SOUND | {"unreached_fraction": 1e-4})
    assert result.as_dict()["converged"]
    assert result.as_dict()["free_energy_per_atom"]["value"] == -1.0
    show(result)
    printed = capsys.readouterr().out
    assert "note: the flow could not be inverted for a fraction 1.0e-04 of the base protons" in printed
    assert "note: the map folds for a fraction 1.0e-03 of the samples" in printed
    assert printed.rstrip().endswith("converged")


def test_steps_that_are_left_out_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    state = result_at(POINTS[0], -1.0)
    state.diagnostics["discarded_steps"] = 12.0
    state.budget = {"free_energy_per_atom": {"statistical": 0.008, "log_z": 0.006, "unreached_fraction": 0.0}}
    show(TestResult({}, 0, [state], SOUND, MeasurementInfo(7, 42, 50, "test_steps")))
    printed = capsys.readouterr().out
    assert "note: the first 12 of 50 steps are not in equilibrium and are discarded" in printed
    assert "error of F: 0.00800 statistical, 0.00600 ln Z of the base\n" in printed
    assert "one training: " in printed
    assert "50 measured steps, seed 7; ended by test_steps\n" in printed


def test_chains_that_have_not_equilibrated_are_not_trusted() -> None:
    state = result_at(POINTS[0], -1.0)
    state = StateResult(state.point, state.estimates, state.diagnostics, state.radial, has_equilibrated=False)
    (reason,) = TestResult({}, 0, [state], SOUND).reasons
    assert reason.startswith("the chains have not equilibrated in the first half of the measured steps")
    assert "raise datamodule.equilibration_steps and datamodule.test_steps" in reason
