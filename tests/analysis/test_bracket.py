"""The exact F from above and below as it is read from summary.json: table, lines and comparison of runs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_vfe.analysis.bracket import ROWS, bracket_lines, bracket_table, short_line
from lightning_vfe.analysis.compare import comparison_table
from lightning_vfe.analysis.run import load_run
from lightning_vfe.cli.report import _rows

MakeRun = Callable[..., Path]


def bracket(exact: float | None = -0.55) -> dict[str, Any]:
    """F = -0.547(1) with two gaps; without an exact value the gap of psi is missing."""
    content: dict[str, Any] = {name: {"value": 0.001, "error": 0.0005, "unit": "Ha/atom", "note": ""} for name in ROWS}
    content["upper_bound_per_atom"] |= {"value": -0.547, "error": 0.001}
    content["exact_free_energy_per_atom"] |= {"value": exact, "error": None if exact is None else 0.002}
    if exact is None:
        content["psi_gap_per_atom"] |= {"value": None, "error": None, "note": "too few steps"}
        content["exact_free_energy_per_atom"]["note"] = "the gap of psi is not known"
    content["v_score"] |= {"unit": "", "note": "N Var(E_loc) / E^2"}
    return content | {"flow": None, "line": None}


def add_bracket(folder: Path, content: dict[str, Any]) -> Path:
    summary = json.loads((folder / "summary.json").read_text())
    for entry in summary.get("states", [summary]):
        entry["bracket"] = content
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_table_of_one_state(make_run: MakeRun) -> None:
    table = bracket_table(load_run(add_bracket(make_run(), bracket(exact=None))))
    assert list(table.index) == list(ROWS)
    assert table.loc["upper_bound_per_atom"].tolist() == ["F of this run, upper bound", -0.547, 0.001, "Ha/atom", ""]
    assert math.isnan(table.loc["psi_gap_per_atom", "value"])
    assert table.loc["psi_gap_per_atom", "note"] == "too few steps"
    fixed = bracket_table(load_run(add_bracket(make_run(protons="fixed"), bracket())))
    assert fixed.loc["upper_bound_per_atom", "quantity"] == "E of this run, upper bound"


def test_table_of_several_states(make_states: MakeRun) -> None:
    table = bracket_table(load_run(add_bracket(make_states([1.2, 1.3], [6000.0]), bracket())))
    assert table.index.names == ["rs", "temperature_kelvin", "term"]
    assert table.loc[(1.3, 6000.0, "exact_free_energy_per_atom"), "value"] == -0.55


def test_a_summary_without_a_bracket_says_how_to_get_one(make_run: MakeRun) -> None:
    with pytest.raises(ValueError, match=r"summary.json holds no bracket; write it with: lightning-vfe test run_dir="):
        bracket_table(load_run(make_run()))


def test_lines_say_what_is_not_given() -> None:
    lines = bracket_lines(bracket(exact=None))
    assert lines[3:5] == [
        "gap of psi: not given: too few steps",
        "exact F, estimate: not given: the gap of psi is not known",
    ]
    assert [line.split(":")[0] for line in bracket_lines(bracket(), is_fixed=True)] == [
        "E of this run, upper bound",
        "gap of psi",
        "exact E, estimate",
        "V-score",
    ]
    assert short_line(bracket(exact=None)).endswith("gap of psi -, exact F, estimate -")


def test_the_comparison_shows_the_estimates(make_run: MakeRun) -> None:
    """A run without one stands beside a run with one."""
    runs = {"with": load_run(add_bracket(make_run(), bracket())), "without": load_run(make_run(num_steps=400))}
    table = comparison_table(runs)
    assert table.loc["with", "exact_free_energy_per_atom"] == -0.55
    assert math.isnan(table.loc["without", "exact_free_energy_per_atom"])
    plus = "\N{PLUS-MINUS SIGN}"
    assert ["exact F, estimate, Ha/atom", f"-0.5500 {plus} 0.0020", "not reported"] in _rows(table)
    assert "exact_free_energy_per_atom" not in comparison_table({"without": runs["without"]})
