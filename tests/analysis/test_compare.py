"""Several runs side by side."""

import json

import numpy as np
import pytest

from lightning_vfe.analysis.compare import check_same_state, comparison_table, draw_comparison
from lightning_vfe.analysis.run import load_run


def _two_runs(make_run):
    first, second = make_run(num_steps=500), make_run(num_steps=400)
    summary = json.loads((second / "summary.json").read_text())
    summary["free_energy_per_atom"] = {"value": None, "error": None}
    summary["energy_per_atom"]["value"] -= 0.002
    summary["converged"] = False
    (second / "summary.json").write_text(json.dumps(summary))
    return {"uniform base": load_run(first), "Delta-ML": load_run(second)}


def test_table_holds_what_the_runs_report(make_run):
    table = comparison_table(_two_runs(make_run))
    assert list(table.index) == ["uniform base", "Delta-ML"]
    assert table.loc["uniform base", "free_energy_per_atom"] == pytest.approx(-0.547)
    assert table.loc["uniform base", "above_lowest_f"] == 0.0
    assert np.isnan(table.loc["Delta-ML", "free_energy_per_atom"])
    assert table.loc["Delta-ML", "energy_per_atom"] == pytest.approx(-0.438)
    assert list(table["converged"]) == [True, False]


def test_figure_shows_every_quantity_and_the_protons(make_run, tmp_path):
    figure = draw_comparison(_two_runs(make_run))
    assert len(figure.axes) == 5
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["uniform base", "Delta-ML"]
    figure.savefig(tmp_path / "comparison.png")
    assert (tmp_path / "comparison.png").stat().st_size > 10_000


def test_other_states_are_refused(make_run):
    runs = {"a": load_run(make_run()), "b": load_run(make_run(protons="fixed"))}
    with pytest.raises(ValueError, match=r"runs: system.temperature_kelvin is 6000.0 in a but 0.0 in b"):
        check_same_state(runs)
    with pytest.raises(ValueError, match="names no run"):
        comparison_table({})
