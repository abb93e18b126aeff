"""`lightning-vfe eos`: tables, files and one clear line for what cannot be used."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest

import lightning_vfe as lv
from lightning_vfe.cli import main
from tests.helpers.states_of_gas import write_gas

RS, KELVINS = [1.8, 1.9, 2.0, 2.1], [5000.0, 6000.0, 7000.0]


def test_eos_writes_tables_and_figures_into_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_gas(tmp_path / "run", RS, KELVINS, seed=1, wrong={(1.9, 6000.0): (0.0, 9.0, 0.0)})
    # a start for which the Hugoniot of the gas runs through the states
    words = ["hugoniot.energy_per_atom=0.0151", "hugoniot.density_g_per_cm3=0.376"]
    assert main(["eos", str(run), *words]) == 0
    table = pd.read_csv(run / "eos.csv", index_col=["rs", "temperature_kelvin"])
    assert len(table) == 12
    assert abs(table.loc[(1.9, 6000.0), "left_out_E"]) > 5
    surface = json.loads((run / "eos_surface.json").read_text())
    assert len(surface["coefficients"]) == len(surface["terms"]) == len({tuple(pair) for pair in surface["terms"]})
    assert len(surface["covariance"]) == len(surface["coefficients"])
    assert surface["dof"] == 36 - len(surface["coefficients"])
    for name in ("isotherms", "free_energy", "isentropes", "hugoniot"):
        assert (run / "figures" / f"eos_{name}.png").stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert "degrees of freedom" in printed
    assert "rs = 1.9, T = 6000 K: does not fit the other states: " in printed
    assert "Hugoniot" in printed
    assert max(map(len, printed.splitlines())) <= max(80, len(str(run)) + 60)
    assert set(pd.read_csv(run / "hugoniot.csv")["source"]) == {"surface", "measured"}


def test_several_runs_make_one_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cold, hot = (write_gas(tmp_path / f"T{kelvin:g}", RS, [kelvin], seed=1) for kelvin in (5000.0, 6000.0))
    before = sorted(tmp_path.rglob("*"))
    assert main(["eos", str(cold), str(hot), "--dry-run"]) == 0
    assert sorted(tmp_path.rglob("*")) == before, "a dry run writes nothing"
    assert main(["eos", str(cold), str(hot)]) == 0
    assert len(pd.read_csv(tmp_path / "runs" / "eos" / "eos.csv")) == 8
    found = lv.eos([cold, hot])
    assert not found.files
    assert math.isfinite(float(found.table["fit_sound_speed_km_per_s"].iloc[0]))
    alone = lv.eos([hot]).table  # one temperature says nothing of C_V
    assert math.isnan(float(alone["fit_heat_capacity"].iloc[0]))
    assert math.isfinite(float(alone["fit_pressure_gpa"].iloc[0]))


def edited(folder: Path, **changes: object) -> Path:
    """The run with other entries in its first state."""
    content = json.loads((folder / "summary.json").read_text())
    content["states"][0] |= changes
    (folder / "summary.json").write_text(json.dumps(content))
    return folder


def test_what_cannot_be_used_ends_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_gas(tmp_path / "run", RS, KELVINS)
    other_size = write_gas(tmp_path / "n16", [2.3], [6000.0], num_atoms=16)
    deuterium = write_gas(tmp_path / "d", [2.3], [6000.0], nucleus="D")
    single = write_gas(tmp_path / "single", [2.3], [6000.0])
    no_result = edited(write_gas(tmp_path / "gap", RS, KELVINS), pressure_gpa={"value": None, "error": None})
    untested = tmp_path / "untested"
    untested.mkdir()
    (untested / "metrics.csv").write_text("step\n0\n")
    lacking = write_gas(tmp_path / "lacking", RS, KELVINS)
    (lacking / "config.yaml").write_text(
        json.dumps({"system": {"num_atoms": 8, "rs": [1.7, *RS], "temperature_kelvin": KELVINS}})
    )
    fixed = write_gas(tmp_path / "fixed", [2.0, 2.1], [6000.0])
    content = json.loads((fixed / "summary.json").read_text())
    content["system"]["protons"] = "fixed"
    (fixed / "summary.json").write_text(json.dumps(content))
    for words, parts in [
        ([], ["runs = [] names no run", "lightning-vfe eos runs/default"]),
        ([str(run), f"runs=[{run}]"], ["both name runs"]),
        ([str(untested)], ["summary.json is missing", "lightning-vfe test"]),
        ([str(single)], ["hold a single state"]),
        ([str(run), str(other_size)], ["differ in system.num_atoms: 8 in", "16 in"]),
        ([str(run), str(deuterium)], ["differ in system.nucleus: H in", "D in"]),
        ([str(run), str(run)], ["hold the state rs = 1.8, T = 5000 K twice"]),
        ([str(no_result)], ["has no pressure_gpa with an error at rs = 1.8, T = 5000 K", "lightning-vfe test"]),
        ([str(lacking)], ["rs = 1.7, T = 5000 K is only in config.yaml", "lightning-vfe test"]),
        ([str(fixed)], ["has no sampled protons, T = 0"]),
        ([str(run), "hugoniot.nucleus=T"], ["hugoniot.nucleus = T must be D or H"]),
        ([str(run), "hugoniot.density_g_per_cm3=0"], ["hugoniot.density_g_per_cm3 = 0", "must be positive"]),
        ([str(run), "hugoniot.pressure_gpa=low"], ["hugoniot.pressure_gpa = low must be a number"]),
    ]:
        assert main(["eos", *words]) == 2, words
        error = capsys.readouterr().err
        for part in parts:
            assert part in error, f"{part!r} is not in: {error}"
        assert error.count("\n") == 1
