"""The verb `report`."""

import json
from pathlib import Path

import pandas as pd
import pytest

from lightning_vfe.cli import main

SYSTEM = {"num_atoms": 8, "rs": 1.25, "protons": "sampled", "temperature_kelvin": 6000.0}


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    folders = [tmp_path / "first" / "run", tmp_path / "second" / "run"]
    for number, folder in enumerate(folders):
        folder.mkdir(parents=True)
        terms = ("free_energy_per_atom", "energy_per_atom", "entropy_per_atom", "pressure_gpa")
        content: dict[str, object] = {name: {"value": -0.5 - 0.01 * number, "error": 0.001} for name in terms}
        (folder / "summary.json").write_text(json.dumps(content | {"system": SYSTEM, "converged": True}))
    return folders


def test_report_writes_table_and_figure(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["report", f"runs=[{runs[0]},{runs[1]}]", "labels=[uniform,Delta-ML]", f"run_dir={tmp_path / 'report'}"]
    assert main(words) == 0
    table = pd.read_csv(tmp_path / "report" / "comparison.csv", index_col="run")
    assert table.loc["uniform", "above_lowest_f"] == pytest.approx(0.01)
    assert (tmp_path / "report" / "comparison.png").stat().st_size > 10_000
    assert "Delta-ML" in capsys.readouterr().out


def test_bad_lists_end_in_one_line(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    both = f"runs=[{runs[0]},{runs[1]}]"
    for words, part in [
        (["report"], "runs = [] names no run"),
        (["report", both], "labels: run stands for several runs"),
        (["report", both, "labels=[one]"], "are 1 but runs are 2"),
        (["report", "runs=[nowhere]"], "nowhere does not exist"),
        (["report", both, "lables=[a,b]"], "labels"),
    ]:
        assert main(words) == 2
        error = capsys.readouterr().err
        assert part in error and error.count("\n") == 1
