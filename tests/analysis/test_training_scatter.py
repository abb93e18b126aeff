"""Spread between trainings of one state, against numbers whose spread is known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lightning_vfe.analysis.run import RunFolder
from lightning_vfe.analysis.training_scatter import TERMS, training_scatter
from lightning_vfe.cli import main

CONFIG = """seed: {seed}
name: run
system: {{num_atoms: 8, rs: {rs}, temperature_kelvin: 6000.0, protons: sampled}}
optimizer: {{damping: {damping}}}
state: {{seed: '${{seed}}'}}
"""


def write(folder: Path, seed: int, value: float, error: float = 0.001, log_z: float = 0.0, **more: float) -> Path:
    """A measured training; all terms have the same value."""
    folder.mkdir(parents=True)
    settings = {"rs": 1.25, "damping": 0.1} | more
    (folder / "config.yaml").write_text(CONFIG.format(seed=seed, **settings))
    system = {"num_atoms": 8, "rs": settings["rs"], "protons": "sampled", "temperature_kelvin": 6000.0}
    content = {"system": system, "step": 80, "converged": True, "reasons": [], "diagnostics": {}}
    content["measurement"] = {"seed": 5, "training_seed": seed, "steps": 100, "ended_by": "test_steps"}
    content |= {name: {"value": value, "error": math.hypot(error, log_z)} for name in TERMS}
    content["error_budget"] = {
        name: {"statistical": error, "log_z": log_z, "unreached_fraction": 0.0} for name in TERMS
    }
    (folder / "summary.json").write_text(json.dumps(content))
    return folder


def scatter(folders: list[Path]) -> pd.DataFrame:
    return training_scatter({folder.name: RunFolder(folder) for folder in folders})


def test_a_case_by_hand(tmp_path: Path) -> None:
    values = (-0.50, -0.51, -0.52)
    table = scatter([write(tmp_path / f"s{seed}", seed, value, 0.006, 0.002) for seed, value in enumerate(values)])
    row = table.xs("free_energy_per_atom", level="term").iloc[0]
    assert row["num_trainings"] == 3
    assert row["mean"] == pytest.approx(-0.51)
    assert row["standard_deviation"] == pytest.approx(0.01)
    assert row["statistical_error"] == pytest.approx(0.006)
    assert row["training_scatter"] == pytest.approx(0.008)
    assert row["log_z_error"] == pytest.approx(0.002)
    assert row["error_of_one"] == pytest.approx(math.hypot(0.006, 0.008, 0.002))
    assert row["mean_error"] == pytest.approx(math.hypot(0.01 / math.sqrt(3), 0.002))
    assert row["chi2"] == pytest.approx(2 / 0.36)
    assert row["p_value"] == pytest.approx(math.exp(-1 / 0.36)), "chi^2 with two degrees of freedom"


def test_p_values_of_trainings_that_do_not_differ_are_uniform() -> None:
    from lightning_vfe.analysis.training_scatter import _row

    rng = np.random.default_rng(0)
    errors = np.array([0.5, 1.0, 2.0, 1.5])
    p = np.array([_row(errors * rng.standard_normal(4), errors, 0.0)["p_value"] for _ in range(2000)])
    for limit in (0.01, 0.1, 0.5):
        assert np.mean(p < limit) == pytest.approx(limit, abs=4 * math.sqrt(limit * (1 - limit) / 2000))


def test_only_trainings_that_differ_by_their_seed_are_one_group(tmp_path: Path) -> None:
    folders = [write(tmp_path / f"a{seed}", seed, -0.5) for seed in (1, 2)]
    folders += [write(tmp_path / f"b{seed}", seed, -0.6, damping=0.2) for seed in (1, 2, 3)]
    folders.append(write(tmp_path / "again", 1, -0.7))  # the training of a1 measured once more
    folders.append(write(tmp_path / "other", 4, -0.5, damping=0.3))
    table = scatter(folders)
    groups = table["num_trainings"].groupby(level="trainings").first()
    assert groups.to_dict() == {"a1, a2": 2, "b1, b2, b3": 3}
    assert scatter(folders[-1:]).empty
    (folders[0] / "config.yaml").unlink()
    assert list(scatter(folders[:2]).index) == []


def test_report_says_whether_trainings_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [write(tmp_path / f"seed-{seed}", seed, -0.5 - 0.01 * seed) for seed in (1, 2, 3)]
    runs = f"runs=[{','.join(map(str, folders))}]"
    assert main(["report", runs, f"run_dir={tmp_path / 'report'}"]) == 0
    printed = capsys.readouterr().out
    assert "rs = 1.25, T = 6000 K; 3 trainings that differ by their seed" in printed
    assert f"trainings: {tmp_path / 'report' / 'training_scatter.csv'}" in printed.replace("\n", "")
    row = next(line for line in printed.splitlines() if "F, Ha/atom" in line and "0.01000" in line)
    assert "0.5200(58)" in row, "0.01 / sqrt(3)"
    assert "yes" in row
    table = pd.read_csv(tmp_path / "report" / "training_scatter.csv")
    assert table["standard_deviation"].to_numpy() == pytest.approx(0.01)
    assert main(["report", f"runs=[{folders[0]}]", f"run_dir={tmp_path / 'one'}"]) == 0
    assert "one training of each" in capsys.readouterr().out
    assert not (tmp_path / "one" / "training_scatter.csv").exists()
