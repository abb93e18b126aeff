"""Several runs of the same states side by side."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_vfe.analysis.compare import check_same_state, comparison_table, draw_comparison
from lightning_vfe.analysis.run import RunFolder, load_run

MakeStates = Callable[..., Path]
GRID = ([1.2, 1.3], [4000.0, 6000.0])


@pytest.fixture
def runs(make_states: MakeStates) -> dict[str, RunFolder]:
    """Two runs of four states, listed in another order; the second lies 1 and 2 mHa below in its first two."""
    first = make_states(*GRID, name="first")
    pairs = [[1.3, 6000.0], [1.2, 4000.0], [1.2, 6000.0], [1.3, 4000.0]]
    second = make_states([1.0], [1.0], pairs=pairs, name="second")
    content = json.loads((second / "summary.json").read_text())
    for number in (0, 1):
        content["states"][number]["free_energy_per_atom"]["value"] -= 0.001 * (1 + number)
    content["states"][2] |= {"converged": False, "reasons": ["R-hat"]}
    content |= {"converged": False, "reasons": ["R-hat"]}
    (second / "summary.json").write_text(json.dumps(content))
    return {"a": load_run(first), "b": load_run(second)}


def test_table_has_a_block_for_each_state(runs: dict[str, RunFolder]) -> None:
    table = comparison_table(runs)
    assert table.index.names == ["rs", "temperature_kelvin", "run"]
    assert len(table) == 8
    assert list(table.index[:3]) == [(1.2, 4000.0, "a"), (1.2, 4000.0, "b"), (1.2, 6000.0, "a")]
    assert table.loc[(1.2, 4000.0, "a"), "above_lowest_f"] == pytest.approx(0.002)
    assert table.loc[(1.3, 6000.0, "a"), "above_lowest_f"] == pytest.approx(0.001)
    assert table.loc[(1.3, 6000.0, "b"), "above_lowest_f"] == 0.0
    assert table.loc[(1.2, 6000.0), "converged"].tolist() == [True, False]


def test_figure_shows_terms_and_the_protons_of_each_state(runs: dict[str, RunFolder], tmp_path: Path) -> None:
    figure = draw_comparison(runs)
    titles = [panel.get_title(loc="left") for panel in figure.axes]
    assert titles[0] == "$F$ above the lowest of its state"
    assert len(titles) == 9
    assert titles[5:] == [f"protons, $r_s = {rs}$, $T = {kelvin:g}$ K" for rs in GRID[0] for kelvin in GRID[1]]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["a", "b", "$T = 4000$ K", "$T = 6000$ K", "not converged"]
    figure.savefig(tmp_path / "comparison.png")
    assert (tmp_path / "comparison.png").stat().st_size > 10_000


def test_figure_of_many_states_or_fixed_protons_has_no_protons(make_states: MakeStates) -> None:
    many = load_run(make_states([1.2, 1.25, 1.3, 1.4], [4000.0, 6000.0], name="many"))
    assert len(draw_comparison({"a": many}).axes) == 5
    fixed = load_run(make_states([1.25, 1.31], [6000.0], protons="fixed", name="fixed"))
    titles = [panel.get_title(loc="left") for panel in draw_comparison({"a": fixed}).axes]
    assert [title.split("  ")[0] for title in titles[1:]] == ["$E = F$", "$P$"]


def test_what_differs_is_named(
    runs: dict[str, RunFolder], make_states: MakeStates, make_run: Callable[..., Path]
) -> None:
    fewer = load_run(make_states(GRID[0], [4000.0], name="fewer"))
    other = load_run(make_states([1.2, 1.35], [4000.0], name="other"))
    heavy = make_states(*GRID, name="heavy")
    (heavy / "config.yaml").write_text((heavy / "config.yaml").read_text().replace('"H"', '"D"'))
    fixed = load_run(make_states([1.2, 1.3], [1.0], protons="fixed", name="fixed"))
    for pair, message in [
        ((runs["a"], fewer), "a holds the state rs = 1.2, T = 6000 K and 1 more but b does not"),
        ((fewer, runs["a"]), "b holds the state rs = 1.2, T = 6000 K and 1 more but a does not"),
        ((fewer, other), "a holds the state rs = 1.3, T = 4000 K but b does not"),
        ((runs["a"], load_run(make_run())), "a holds the state rs = 1.2, T = 4000 K and 3 more but b does not"),
        ((runs["a"], load_run(heavy)), "system.nucleus is H in a but D in b"),
        ((fewer, fixed), "system.protons is sampled in a but fixed in b"),
    ]:
        with pytest.raises(ValueError) as error:  # noqa: PT011  (its message is checked below)
            check_same_state(dict(zip("ab", pair, strict=True)))
        assert f"runs: {message}; compare runs of the same s" in str(error.value)


def test_single_runs_of_other_nuclei_are_refused(make_run: Callable[..., Path]) -> None:
    first, second = make_run(num_steps=5), make_run(num_steps=6)
    config = second / "config.yaml"
    config.write_text(config.read_text().replace("system:\n", "system:\n  nucleus: D\n"))
    with pytest.raises(ValueError, match=r"runs: system.nucleus is H in a but D in b; compare runs of one state point"):
        check_same_state({"a": load_run(first), "b": load_run(second)})
    config.write_text(config.read_text().replace("nucleus: D", "nucleus: H"))
    check_same_state({"a": load_run(first), "b": load_run(second)})
