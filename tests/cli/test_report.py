"""The verb `report`."""

import json
from pathlib import Path

import pandas as pd
import pytest

from lightning_vfe.cli import main
from lightning_vfe.cli.sweep_table import print_results
from lightning_vfe.errors import CommandError

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
        (["report", both], "labels = ['run', 'run'] has run for several runs"),
        (["report", both, "labels=[one]"], "are 1 but runs are 2"),
        (["report", "runs=[nowhere]"], "nowhere does not exist"),
        (["report", both, "lables=[a,b]"], "labels"),
    ]:
        assert main(words) == 2
        error = capsys.readouterr().err
        assert part in error
        assert error.count("\n") == 1


TERMS = ("free_energy_per_atom", "energy_per_atom", "entropy_per_atom", "pressure_gpa")


def write_states(folder: Path, densities: list[float], shift: float = 0.0) -> Path:
    """The result of a run of several states."""
    folder.mkdir(parents=True)
    states = [
        {"rs": rs, "temperature_kelvin": 6000.0, "converged": rs < 2.1, "reasons": [] if rs < 2.1 else ["R-hat"]}
        | {name: {"value": -0.1 * rs - shift, "error": 0.001} for name in TERMS}
        for rs in densities
    ]
    content = {"system": {"num_atoms": 8, "protons": "sampled", "nucleus": "H"}, "states": states}
    (folder / "summary.json").write_text(json.dumps(content | {"converged": False, "reasons": ["R-hat"]}))
    return folder


def test_report_of_several_states(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (write_states(tmp_path / name, [1.9, 2.0, 2.1], len(name) / 1000) for name in ("a", "bc"))
    assert main(["report", f"runs=[{first},{second}]", f"run_dir={tmp_path / 'report'}"]) == 0
    table = pd.read_csv(tmp_path / "report" / "comparison.csv", index_col=["rs", "temperature_kelvin", "run"])
    assert len(table) == 6
    assert table.loc[(2.0, 6000.0, "a"), "above_lowest_f"] == pytest.approx(0.001)
    assert (tmp_path / "report" / "comparison.png").stat().st_size > 10_000
    printed = capsys.readouterr().out
    for rs in ("1.9", "2", "2.1"):
        assert printed.count(f"rs = {rs}, T = 6000 K; errors") == 1
    assert printed.count("NO") == 2
    assert printed.count("above lowest F") == 3


def test_runs_of_other_states_end_in_one_line(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = write_states(tmp_path / "a", [1.9, 2.0]), write_states(tmp_path / "b", [1.9])
    damaged = write_states(tmp_path / "damaged", [1.9, 2.0])
    (damaged / "summary.json").write_text('{"states": [{"rs": 1.9}, {}]}')
    for pair, part in [
        ((first, second), "a holds the state rs = 2, T = 6000 K but b does not"),
        ((first, runs[0]), "a holds the state rs = 1.9, T = 6000 K and 1 more but run does not"),
        ((first, damaged), f"{damaged / 'summary.json'} is damaged"),
    ]:
        assert main(["report", f"runs=[{pair[0]},{pair[1]}]", f"run_dir={tmp_path / 'report'}"]) == 2
        error = capsys.readouterr().err
        assert part in error
        assert error.count("\n") == 1
    assert not (tmp_path / "report").exists()


def test_table_of_a_sweep_with_several_states(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = {write_states(tmp_path / f"job{number}", [1.9, 2.0]): {"seed": str(number)} for number in (1, 2)}
    print_results(tmp_path, jobs)
    table = pd.read_csv(tmp_path / "sweep.csv")
    assert list(table.columns[:4]) == ["seed", "rs", "temperature_kelvin", "free_energy_per_atom"]
    assert list(zip(table["seed"], table["rs"], strict=True)) == [(1, 1.9), (1, 2.0), (2, 1.9), (2, 2.0)]
    assert "rs, bohr" in capsys.readouterr().out
    (next(iter(jobs)) / "summary.json").write_text('{"states": [{}]}')
    with pytest.raises(CommandError, match="is damaged"):
        print_results(tmp_path, jobs)


def test_table_of_a_sweep_of_single_states(runs: list[Path], tmp_path: Path) -> None:
    print_results(tmp_path, {folder: {"seed": folder.parent.name} for folder in runs})
    assert list(pd.read_csv(tmp_path / "sweep.csv").columns[:2]) == ["seed", "free_energy_per_atom"]
