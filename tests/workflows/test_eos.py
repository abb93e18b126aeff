"""`lv.eos` on runs whose bases share one ln Z problem, on grids with gaps, and on runs that do not belong together."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lightning_vfe as lv
from lightning_vfe.cli import main
from lightning_vfe.errors import SettingError
from lightning_vfe.models.base.log_z import LogZEntry, store_entry
from lightning_vfe.physics.finite_size import two_body_corrections
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.units import KELVIN_TO_HARTREE
from lightning_vfe.resources import resource_folder
from tests.helpers.states_of_gas import ERRORS, write_gas

RS, KELVINS = [1.8, 1.9, 2.0, 2.1], [5000.0, 6000.0, 7000.0]
STATES = [(rs, kelvin) for rs in RS for kelvin in KELVINS]
LOG_Z_ERROR, CORRELATION = 0.05, 0.7


def with_config(run: Path, rs: list[float] = RS, base: dict[str, Any] | None = None, **system: Any) -> Path:
    """The run with a config.yaml."""
    own = {"num_atoms": 8, "rs": rs, "temperature_kelvin": KELVINS} | system
    (run / "config.yaml").write_text(json.dumps({"system": own, "base": base or {"_target_": "lv.UniformBase"}}))
    return run


def with_budget(run: Path) -> Path:
    """The run with errors of ln Z in its error budget and in the errors of F."""
    content = json.loads((run / "summary.json").read_text())
    for entry in content["states"]:
        log_z = KELVIN_TO_HARTREE * entry["temperature_kelvin"] * LOG_Z_ERROR / 8
        entry["free_energy_per_atom"]["error"] = float(np.hypot(ERRORS[0], log_z))
        entry["error_budget"] = {"free_energy_per_atom": {"statistical": ERRORS[0], "log_z": log_z}}
    (run / "summary.json").write_text(json.dumps(content))
    return run


def store_log_z(file: Path, error: float = LOG_Z_ERROR) -> None:
    """ln Z of all states by one problem, with one correlation between any two."""
    for state in STATES:
        shared = tuple((*other, error**2 * (1.0 if other == state else CORRELATION)) for other in STATES)
        store_entry(file, LogZEntry(8, *state, 100.0, error, "hash", True, problem="one", covariances=shared))


def test_the_covariance_of_ln_z_is_that_of_the_file(tmp_path: Path) -> None:
    """Of two runs on one base; an entry that test has not used, or a missing file, is said in one line."""
    base = {"_target_": "lv.BoltzmannBase.from_files", "potential_path": str(tmp_path / "pair.pt")}
    runs = []
    for number, rs in enumerate((RS[:2], RS[2:])):
        run = with_budget(write_gas(tmp_path / f"run{number}", rs, KELVINS, seed=number))
        runs.append(with_config(run, rs, base))
    store_log_z(tmp_path / "pair.log_z.json")
    found = lv.eos(runs)
    assert found.remarks == []
    one, other = found.fit.points[0], found.fit.points[-1]
    assert one.run != other.run
    expected = CORRELATION * LOG_Z_ERROR**2 * one.kT * other.kT / 64
    assert one.shared[other.state] == pytest.approx(expected, rel=1e-12)
    assert len(one.shared) == len(STATES) - 1
    row = {(n, k): i for i, (n, k) in enumerate(zip(found.fit.owner, found.fit.kind, strict=True))}
    assert found.fit.covariance[row[0, 0], row[len(STATES) - 1, 0]] == pytest.approx(expected, rel=1e-12)
    assert found.fit.covariance[row[0, 0], row[0, 0]] == pytest.approx(float(one.covariance[0, 0]), rel=1e-12)
    assert found.fit.covariance[row[0, 0], row[1, 1]] == 0.0

    store_log_z(tmp_path / "pair.log_z.json", error=2 * LOG_Z_ERROR)
    changed = lv.eos(runs)
    assert [line.split(" at ")[0] for line in changed.remarks] == ["errors of ln Z are taken as independent"] * 2
    assert "pair.log_z.json does not hold the ln Z that test has used" in changed.remarks[0]
    assert all(not point.shared for point in changed.fit.points)
    (tmp_path / "pair.log_z.json").unlink()
    assert len(lv.eos(runs).remarks) == 2


def test_a_gap_in_the_grid_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The fit goes on without the states, and a line says which are missing."""
    run = write_gas(tmp_path / "run", RS, KELVINS, seed=1)
    content = json.loads((run / "summary.json").read_text())
    missing = [(1.9, 6000.0), (2.1, 7000.0)]
    content["states"] = [
        entry for entry in content["states"] if (entry["rs"], entry["temperature_kelvin"]) not in missing
    ]
    (run / "summary.json").write_text(json.dumps(content))
    assert main(["eos", str(run)]) == 0
    line = "the grid has no state at rs = 1.9, T = 6000 K; rs = 2.1, T = 7000 K: the surface interpolates there"
    assert line in capsys.readouterr().out
    assert len(lv.eos([run]).table) == len(STATES) - 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"twists": [2, 2, 2]}, "differ in system.twists: [1, 1, 1] in"),
        ({"twist_shift": 0.25}, "differ in system.twist_shift: 0.0 in"),
        ({"base": {"_target_": "lv.BoltzmannBase.from_files", "potential_path": "a.pt"}}, "differ in base._target_"),
        ({"nucleus": 1836.0}, "differ in system.nucleus: H in"),
        ({"num_atoms": 16}, "differ in system.num_atoms: 8 in"),
    ],
)
def test_runs_that_do_not_belong_together(
    tmp_path: Path, changes: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    common = {"twists": [1, 1, 1], "twist_shift": 0.0, "nucleus": "H"}
    first = with_config(write_gas(tmp_path / "first", RS, KELVINS), **common)
    second = with_config(write_gas(tmp_path / "second", [2.2], KELVINS), [2.2], **(common | changes))
    assert main(["eos", str(first), str(second)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("kelvin", [0.0, -300.0])
def test_a_temperature_that_is_not_positive(tmp_path: Path, kelvin: float, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_gas(tmp_path / "run", RS, KELVINS)
    content = json.loads((run / "summary.json").read_text())
    content["states"][3]["temperature_kelvin"] = kelvin
    (run / "summary.json").write_text(json.dumps(content))
    assert main(["eos", str(run)]) == 2
    error = capsys.readouterr().err
    assert f"T = {kelvin:g}" in error
    assert error.count("\n") == 1


def test_initial_state_is_public(tmp_path: Path) -> None:
    """Another start moves the Hugoniot; that of liquid deuterium is the default."""
    run = write_gas(tmp_path / "run", RS, KELVINS)
    start = lv.InitialState.of("D", density_g_per_cm3=0.376, energy_per_atom=0.0151)
    assert not lv.eos([run], start).hugoniot.empty
    assert lv.eos([run], lv.InitialState.of("D")).hugoniot.equals(lv.eos([run]).hugoniot)
    assert replace(start, pressure=1e-4).pressure == 1e-4
    with pytest.raises(SettingError, match="must be D or H"):
        lv.InitialState.of("T")


def test_finite_size_corrections_enter_where_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of summary.json, those of plasmons elsewhere; the surface stays consistent, and lines say what it holds."""
    run = write_gas(tmp_path / "run", RS, KELVINS, seed=1)
    content = json.loads((run / "summary.json").read_text())
    own = {"free_energy_per_atom": 0.03, "energy_per_atom": 0.03, "pressure_gpa": 20.0}
    entry = content["states"][0]
    entry |= {f"finite_size_{name}": {"value": value, "error": 0.0, "unit": ""} for name, value in own.items()}
    (run / "summary.json").write_text(json.dumps(content))
    raw, corrected = lv.eos([run]), lv.eos([run], finite_size=True)
    shifts = corrected.table[list(own)] - raw.table[list(own)]
    assert shifts.iloc[0].to_dict() == pytest.approx(own, rel=1e-9)
    for (rs, kelvin), row in list(shifts.iterrows())[1:]:
        expected = two_body_corrections(StatePoint(rs, kelvin), 8)
        assert row.to_dict() == pytest.approx({name: expected[f"finite_size_{name}"].value for name in own}, rel=1e-9)
    np.testing.assert_allclose(corrected.table["entropy_per_atom"], raw.table["entropy_per_atom"])
    assert corrected.remarks[-2:] == [
        "F, E and P contain two-body finite-size corrections, which are estimates without errors",
        "N = 8 is too small for them at rs = 1.8, 1.9, 2, 2.1: expect them to be too large",
    ]
    assert main(["eos", str(run), "finite_size=true"]) == 0
    assert corrected.remarks[-1] in capsys.readouterr().out
    assert main(["eos", str(run), "finite_size=maybe"]) == 2
    assert "finite_size" in capsys.readouterr().err


def test_the_shipped_run_gives_a_surface_and_a_hugoniot() -> None:
    """Both ways to the Hugoniot agree, and F, E and P of the surface lie near the measured ones."""
    found = lv.eos([resource_folder("data") / "runs" / "eos_h8_tabc"])
    assert len(found.table) == 9
    assert found.fit.chi2 / found.fit.dof < 5.0
    assert found.table["pressure_sigmas"].abs().max() < 4.0
    surface = found.hugoniot.set_index("temperature_kelvin")
    measured = found.measured_hugoniot.set_index("temperature_kelvin")
    for kelvin in (4000.0, 6000.0, 10_000.0):
        for name in ("compression", "pressure_gpa"):
            error = np.hypot(surface.loc[kelvin, f"{name}_error"], measured.loc[kelvin, f"{name}_error"])
            assert abs(surface.loc[kelvin, name] - measured.loc[kelvin, name]) < 3.0 * error
