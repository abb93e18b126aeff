"""`benchmarks/coverage.py`: what it counts, with results that are drawn instead of measured."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.helpers.scripts import load_script

coverage = load_script(Path(__file__).parents[1] / "benchmarks" / "coverage.py")
BINS = 20


def drawn(error: float, true_error: float) -> Any:
    """Stands for `lv.test`: results around 1 that claim an error; the seed before the first is that of the long one."""

    def test(seed: str, steps: str, *_more: str, ckpt_path: Path, run_dir: Path) -> SimpleNamespace:
        number = int(seed.removeprefix("seed="))
        is_long = number == coverage.FIRST_SEED - 1
        claimed = 0.0001 if is_long else error
        rng = np.random.default_rng(number)

        def value() -> float:
            return 1.0 + (0.0 if is_long else true_error * float(rng.standard_normal()))

        run_dir.mkdir(parents=True)
        terms = {name: {"value": value(), "error": claimed} for name in coverage.TERMS.values()}
        (run_dir / "summary.json").write_text(json.dumps(terms))
        rows = [f"{r},{value() if r < BINS - 5 else 0.01},{claimed}" for r in range(BINS)]
        (run_dir / "pair_correlation.csv").write_text(
            "r_bohr,proton_proton,proton_proton_error\n" + "\n".join(rows) + "\n"
        )
        return SimpleNamespace(signal=0)

    return test


@pytest.mark.parametrize(("claimed", "one", "two"), [(0.1, 0.683, 0.954), (0.05, 0.383, 0.683)])
def test_shares_of_normal_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, claimed: float, one: float, two: float
) -> None:
    monkeypatch.setattr(coverage.lv, "test", drawn(claimed, 0.1))
    monkeypatch.setattr(coverage, "ROWS", tmp_path / "coverage.csv")
    rows = coverage.count("a", tmp_path / "run", 100, 20, 1000, [])
    assert [row["quantity"] for row in rows] == ["F", "E", "S", "P", "g(r)"]
    assert [row["counts"] for row in rows] == [100] * 4 + [100 * (BINS - 5)], "bins of at least 0.1"
    assert rows[-1]["within_one"] == pytest.approx(one, abs=0.04)
    assert rows[-1]["within_two"] == pytest.approx(two, abs=0.04)
    coverage.write_rows(rows)
    coverage.write_rows(coverage.count("b", tmp_path / "run", 10, 20, 1000, []))
    coverage.write_rows(rows)
    assert coverage.table().count("\n| a | 100 | 20 | ") == 1
    assert coverage.table().count("\n| b | 10 | 20 | ") == 1


def test_it_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage.lv, "test", drawn(0.1, 0.1))
    first = coverage.count("a", tmp_path / "run", 10, 20, 1000, [])
    monkeypatch.setattr(coverage.lv, "test", None)
    assert coverage.count("a", tmp_path / "run", 10, 20, 1000, []) == first


@pytest.mark.parametrize(("claimed", "one", "two"), [(0.1, 0.683, 0.954), (0.05, 0.383, 0.683)])
def test_shares_of_whole_trainings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, claimed: float, one: float, two: float
) -> None:
    """200 trainings that scatter by 0.1, with errors of that size and of half of it; fixed protons have no S."""

    def fit(*words: str, run_dir: Path, ckpt_path: str) -> SimpleNamespace:
        assert words[0] == "experiment=a"
        assert ckpt_path == "auto"
        run_dir.mkdir(parents=True)
        (run_dir / "seed").write_text(words[1].removeprefix("seed="))
        return SimpleNamespace(signal=0)

    def test(_steps: str, run_dir: Path) -> SimpleNamespace:
        rng = np.random.default_rng(int((run_dir / "seed").read_text()))
        value = 1.0 + 0.1 * float(rng.standard_normal())
        term = {"value": value, "error": claimed}
        (run_dir / "summary.json").write_text(json.dumps({coverage.TERMS["F"]: term, coverage.TERMS["E"]: term}))
        return SimpleNamespace(signal=0)

    monkeypatch.setattr(coverage.lv, "fit", fit)
    monkeypatch.setattr(coverage.lv, "test", test)
    monkeypatch.setattr(coverage, "HOME", tmp_path)
    rows = coverage.count_trainings("c", 200, 20, ["experiment=a"])
    assert [row["quantity"] for row in rows] == ["F", "E"]
    assert rows[0]["within_one"] == pytest.approx(one, abs=0.1)
    assert rows[0]["within_two"] == pytest.approx(two, abs=0.1)
    assert coverage.count_trainings("c", 200, 20, ["experiment=a"]) == rows, "nothing is measured twice"
