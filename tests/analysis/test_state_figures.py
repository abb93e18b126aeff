"""Figures of several states: a line for each, a legend or a colour bar, and ticks that can be read."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from lightning_vfe.analysis.figures import draw_pair_correlation, draw_terms, draw_training, save_figures
from lightning_vfe.analysis.run import load_run
from lightning_vfe.analysis.state_lines import StateGroups, StateLooks, are_apart
from lightning_vfe.analysis.states import State
from lightning_vfe.analysis.style import heading

MakeStates = Callable[..., Path]
CASES = {
    "three densities": ([1.9, 2.0, 2.1], [6000.0]),
    "three temperatures": ([1.25], [4000.0, 6000.0, 8000.0]),
    "grid": ([1.2, 1.3], [4000.0, 6000.0]),
    "twelve": ([1.2, 1.25, 1.3, 1.4], [4000.0, 6000.0, 8000.0]),
}


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


@pytest.mark.parametrize("case", CASES)
def test_every_state_has_a_line(make_states: MakeStates, case: str) -> None:
    run = load_run(make_states(*CASES[case]))
    count = len(run.states)
    training = draw_training(run)
    assert sum(len(line.get_xdata()) == 500 for line in training.axes[0].lines) == count
    pairs = draw_pair_correlation(run)
    panels = [panel.get_title(loc="left") for panel in pairs.axes[:4]]
    assert panels == ["protons", "electrons around protons", "electrons, like spins", "electrons, unlike spins"]
    assert sum(len(line.get_xdata()) == 50 for line in pairs.axes[0].lines) == count
    for figure in (training, pairs):
        has_bar = [axes.get_ylabel() for axes in figure.axes if axes.get_label() == "<colorbar>"]
        assert has_bar == (["$r_s$ / bohr"] if count > 5 else [])
        figure.canvas.draw()
    assert f"{count} states" in texts(training)
    assert "result of test" in texts(training)
    if case == "grid":
        assert "$r_s = 1.2$, $T = 6000$ K" in texts(training)
    if case == "three densities":
        assert "$r_s = 2$" in texts(pairs), "T is the same for all"
        assert "$r_s = 2$, " not in texts(pairs), "T is the same for all"


@pytest.mark.parametrize(
    ("case", "label", "ticks", "lines"),
    [
        ("three densities", "$r_s$ / bohr", ["1.9", "2", "2.1"], 1),
        ("three temperatures", "$T$ / K", ["4000", "6000", "8000"], 1),
        ("grid", "$r_s$ / bohr", ["1.2", "1.3"], 2),
        ("twelve", "$r_s$ / bohr", ["1.2", "1.25", "1.3", "1.4"], 3),
    ],
)
def test_terms_along_the_states(make_states: MakeStates, case: str, label: str, ticks: list[str], lines: int) -> None:
    run = load_run(make_states(*CASES[case]))
    figure = draw_terms(run)
    assert [panel.get_title(loc="left").split("  ")[0] for panel in figure.axes] == ["$F$", "$E$", "$S$", "$P$"]
    panel = figure.axes[0]
    assert panel.get_xlabel() == label
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ticks
    joined = [line for line in panel.lines if len(line.get_xdata()) == len(ticks) and line.get_linestyle() == "-"]
    assert len(joined) == lines
    found = sorted(value for line in joined for value in line.get_ydata())
    assert found == sorted(run.result("free_energy_per_atom", state)[0] for state in run.states)


def test_states_along_a_path_are_one_line(make_states: MakeStates) -> None:
    pairs = [[2.14, 4000.0], [2.0, 6000.0], [1.92, 8000.0], [1.90, 10000.0]]
    figure = draw_terms(load_run(make_states([1.0], [1.0], pairs=pairs)))
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 4]
    assert len(lines) == 1
    assert list(lines[0].get_xdata()) == [1.90, 1.92, 2.0, 2.14]
    assert "$T = 10000$ K" in texts(figure)


def test_fixed_protons(make_states: MakeStates) -> None:
    run = load_run(make_states([1.25, 1.31], [6000.0], protons="fixed"))
    assert [panel.get_title(loc="left").split("  ")[0] for panel in draw_terms(run).axes] == ["$E = F$", "$P$"]
    training = draw_training(run)
    assert training.axes[0].get_title(loc="left").startswith("$E = F$")
    assert "fixed protons" in texts(training)
    assert "protons" not in [panel.get_title(loc="left") for panel in draw_pair_correlation(run).axes]


def test_what_a_run_does_not_trust_or_report(make_states: MakeStates) -> None:
    folder = make_states(*CASES["three densities"])
    content = json.loads((folder / "summary.json").read_text())
    content["states"][0] |= {"converged": False, "reasons": ["R-hat"]}
    content["states"][1] |= {name: {"value": None, "error": None} for name in ("free_energy_per_atom",)}
    content |= {"converged": False, "reasons": ["rs = 1.9: R-hat"]}
    (folder / "summary.json").write_text(json.dumps(content))
    run = load_run(folder)
    figure = draw_terms(run)
    marks = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [to_hex(line.get_markerfacecolor()) == "#ffffff" for line in marks] == [True, False]
    assert "not converged" in texts(figure)
    assert heading(run).endswith("1 of 3 NOT CONVERGED (see summary.json)")
    draw_training(run).canvas.draw()


def test_all_figures_are_saved_and_untested_runs_too(make_states: MakeStates) -> None:
    tested = make_states(*CASES["grid"])
    names = ["training.png", "terms.png", "pair_correlation.png"]
    assert [file.name for file in save_figures(tested)] == names
    fitted = make_states(*CASES["grid"], tested=False, name="fitted")
    (fitted / "config.yaml").unlink()
    assert [file.name for file in save_figures(fitted)] == names[:1]
    assert "result of test" not in texts(draw_training(load_run(fitted)))


def test_a_term_of_some_states_only(make_states: MakeStates) -> None:
    """A state may lack a column that others have; a gap is no limit of the axis."""
    folder = make_states(*CASES["grid"], tested=False)
    text = (folder / "metrics.csv").read_text().replace("pressure_gpa@rs1.2_T4000", "other@rs1.2_T4000")
    (folder / "metrics.csv").write_text(text)
    figure = draw_training(load_run(folder))
    figure.canvas.draw()
    assert all(np.isfinite(panel.get_ylim()).all() for panel in figure.axes)


def test_headings_name_what_all_states_share(make_states: MakeStates) -> None:
    assert heading(load_run(make_states([1.9, 2.0, 2.1], [6000.0]))) == (
        "dense hydrogen,  $N = 8$,  3 states,  $T = 6000$ K"
    )
    assert heading(load_run(make_states([1.25], [4000.0, 6000.0], name="b"))).endswith("2 states,  $r_s = 1.25$")
    for nucleus, text in (('"D"', "dense deuterium"), ("3000", "nuclear mass $3000$"), ("1836", "dense hydrogen,  $N")):
        folder = make_states([1.25], [6000.0], name=nucleus.strip('"'))
        config = folder / "config.yaml"
        config.write_text(config.read_text().replace('"nucleus": "H"', f'"nucleus": {nucleus}'))
        assert text in heading(load_run(folder))


def test_colours_and_dashes() -> None:
    few = StateLooks([State(1.2, 4000.0), State(1.2, 6000.0)])
    assert few.of(State(1.2, 4000.0)).color != few.of(State(1.2, 6000.0)).color
    assert not few.has_bar
    grid = [State(1.0 + 0.1 * i, 1000.0 * j) for i in range(4) for j in range(1, 4)]
    looks = StateLooks(grid)
    assert looks.coordinate == "rs"
    assert len({looks.of(state) for state in grid}) == len(grid)
    hot = [State(1.2 + 0.1 * i, 1000.0 * j) for i in range(2) for j in range(1, 7)]
    looks = StateLooks(hot)
    assert looks.coordinate == "temperature_kelvin"
    assert len({looks.of(state) for state in hot}) == len(hot)
    line = [State(1.0 + 0.1 * i, 1000.0 * i) for i in range(1, 8)]
    assert {StateLooks(line).of(state).dashes for state in line} == {"-"}
    many = [State(1.0 + 0.1 * i, 1000.0 * j) for i in range(6) for j in range(1, 7)]
    assert {StateLooks(many).of(state).dashes for state in many} == {"-"}
    assert len({StateGroups(many).color(number) for number in StateGroups(many).numbers}) == 6


def test_crowded_numbers_get_no_tick_each() -> None:
    assert are_apart([1.0, 2.0, 3.0], 6, 0.12)
    assert not are_apart([1.0, 1.01, 3.0], 6, 0.12)
    assert not are_apart([1.0], 6, 0.12)
    assert not are_apart([1.0, 2.0, 3.0], 2, 0.12)
