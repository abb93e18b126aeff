"""State points: their names, and a run at one of its states."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_vfe.analysis.run import RunFolder, literature, load_run, results_table
from lightning_vfe.analysis.states import State, parse_suffix, split_column, state_suffix, states_of

MakeStates = Callable[..., Path]
GRID = ([1.2, 1.3], [4000.0, 6000.0])


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    text = str(error.value)
    assert "\n" not in text, text
    return text


def change_summary(folder: Path, change: Callable[[dict], None]) -> None:
    content = json.loads((folder / "summary.json").read_text())
    change(content)
    (folder / "summary.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("rs", "kelvin", "suffix", "label"),
    [
        (1.9, 6000.0, "rs1.9_T6000", "rs = 1.9, T = 6000 K"),
        (2.0, 1.5e7, "rs2_T1.5e+07", "rs = 2, T = 1.5e+07 K"),
        (1.31, None, "rs1.31", "rs = 1.31"),
        (1.31, 0.0, "rs1.31", "rs = 1.31"),
    ],
)
def test_names_of_states(rs: float, kelvin: float | None, suffix: str, label: str) -> None:
    assert state_suffix(rs, kelvin) == suffix
    state = State(rs, kelvin or 0.0)
    assert (state.suffix, state.label) == (suffix, label)
    assert parse_suffix(suffix) == state
    assert split_column(f"free_energy_per_atom_error@{suffix}") == ("free_energy_per_atom_error", state)
    assert split_column("electron_acceptance") == ("electron_acceptance", None)


@pytest.mark.parametrize("text", ["", "rs", "T6000", "rs1.9_T", "rs1.9_T6000_x", "rs1.2.3", "rs-_T+"])
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="names no state"):
        parse_suffix(text)


def test_states_of_a_system() -> None:
    pairs = [State(1.2, 4000.0), State(1.2, 6000.0), State(1.3, 4000.0), State(1.3, 6000.0)]
    assert states_of({"rs": [1.2, 1.3], "temperature_kelvin": [4000, 6000]}) == tuple(pairs)
    assert states_of({"rs": 1.2, "temperature_kelvin": [4000, 6000], "states": None}) == tuple(pairs[:2])
    assert states_of({"rs": 1.25, "states": [[1.3, 6000], [1.2, 4000]]}) == (pairs[3], pairs[0])
    assert states_of({"rs": 1.25, "temperature_kelvin": 6000.0}) == (State(1.25, 6000.0),)
    assert states_of({"rs": [1.2, 1.3], "temperature_kelvin": [1, 2], "protons": "fixed"}) == (State(1.2), State(1.3))
    assert states_of({}) == ()


@pytest.mark.parametrize(
    ("system", "part"),
    [
        ({"states": []}, "must be a list of pairs"),
        ({"states": [[1.2]]}, "must be a list of pairs"),
        ({"states": [[1.2, "hot"]]}, "must be a list of pairs"),
        ({"states": 1.2}, "must be a list of pairs"),
        ({"rs": [1.2, None]}, "system.rs = "),
        ({"rs": [], "temperature_kelvin": 1.0}, "system.rs = "),
        ({"rs": 1.2, "temperature_kelvin": "hot"}, "system.temperature_kelvin = hot"),
        ({"rs": [1.2, 1.2], "temperature_kelvin": 1.0}, "rs = 1.2, T = 1 K stands twice"),
        ({"states": [[1.2345678, 1.0], [1.2345679, 1.0]]}, "beyond the sixth digit"),
    ],
)
def test_lists_that_name_no_states(system: dict, part: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011  (its message is checked below)
        states_of(system)
    assert part in one_line(error)


def test_a_run_at_each_of_its_states(make_states: MakeStates) -> None:
    run = load_run(make_states(*GRID))
    assert [state.suffix for state in run.states] == ["rs1.2_T4000", "rs1.2_T6000", "rs1.3_T4000", "rs1.3_T6000"]
    assert run.system["states"][1] == [1.2, 6000.0]
    assert "rs" not in run.system
    view = run.of_state(3)
    assert view.states == (State(1.3, 6000.0),)
    assert view.of_state(0) is view
    assert (view.system["rs"], view.system["temperature_kelvin"], view.system["num_atoms"]) == (1.3, 6000.0, 8)
    assert "states" not in view.system
    assert view.result("free_energy_per_atom") == run.result("free_energy_per_atom", state=3)
    assert view.result("free_energy_per_atom") == run.result("free_energy_per_atom", State(1.3, 6000.0))
    assert run.result("free_energy_per_atom", 3) != run.result("free_energy_per_atom", 0)
    names = list(view.metrics)
    assert not [name for name in names if "@" in name]
    assert view.metrics.index.name == "step"
    assert {"electron_acceptance", "free_energy_per_atom", "free_energy_per_atom_error"} <= set(names)
    assert (view.metrics["pressure_gpa"] == run.metrics["pressure_gpa@rs1.3_T6000"]).all()
    assert view.pair_correlation.index.name == "r_bohr"
    assert len(view.pair_correlation) == 50
    assert next(iter(view.pair_correlation)) == "proton_proton"
    assert view.pair_correlation.index[-1] == pytest.approx(1.3 / 1.25 * 49.5 * 0.0403)
    assert view.summary["diagnostics"]["electron_drift"] == 0.01
    assert view.summary["diagnostics"]["r_hat"] == 1.01
    assert view.summary["system"]["nucleus"] == "H"


def test_a_state_that_is_not_there(make_states: MakeStates) -> None:
    run = load_run(make_states(*GRID))
    for which in (4, State(1.2, 5000.0)):
        with pytest.raises(ValueError, match=r"has no state .*it holds 4: rs = 1.2, T = 4000 K"):
            run.of_state(which)
    with pytest.raises(ValueError, match="holds 4 states; give one of them"):
        run.result("free_energy_per_atom")


def test_one_state_is_its_own_view(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run = load_run(make_run())
    assert run.states == (State(1.25, 6000.0),)
    assert run.views == (run,)
    assert run.result("pressure_gpa", state=0) == run.result("pressure_gpa")
    (tmp_path / "metrics.csv").write_text("step,energy_per_atom\n0,1.0\n")
    bare = load_run(tmp_path)
    assert bare.states == ()
    assert bare.views == (bare,)
    assert bare.system == {}


@pytest.mark.parametrize(("rs", "pairs"), [([1.25], None), ([1.9], [[1.25, 6000.0]])])
def test_a_list_of_one_state_reads_as_a_number(make_states: MakeStates, rs: list, pairs: list | None) -> None:
    folder = make_states(rs, [6000.0], pairs=pairs)
    run = load_run(folder)
    assert run.system["rs"] == 1.25
    assert run.system["temperature_kelvin"] == 6000.0
    assert run.result("free_energy_per_atom")[0] == pytest.approx(-0.547)


def test_fixed_protons_have_densities_alone(make_states: MakeStates) -> None:
    run = load_run(make_states([1.25, 1.31], [6000.0], protons="fixed"))
    assert run.states == (State(1.25), State(1.31))
    view = run.of_state(1)
    assert view.system["temperature_kelvin"] == 0.0
    assert len(view.pair_correlation) == 50
    assert "energy_per_atom" in view.metrics


def test_states_without_a_config(make_states: MakeStates) -> None:
    """The summary names the states, or else the columns of metrics.csv."""
    folder = make_states(*GRID)
    states = load_run(folder).states
    (folder / "config.yaml").unlink()
    assert load_run(folder).states == states
    (folder / "summary.json").unlink()
    run = load_run(folder)
    assert run.states == states
    assert "energy_per_atom" in run.of_state(2).metrics


def test_a_state_is_converged_unless_it_or_all_have_a_reason(make_states: MakeStates) -> None:
    folder = make_states(*GRID)

    def one_fails(content: dict) -> None:
        content["states"][1] |= {"converged": False, "reasons": ["R-hat = 1.2"]}
        content |= {"converged": False, "reasons": ["rs = 1.2, T = 6000 K: R-hat = 1.2"]}

    def electrons_fail(content: dict) -> None:
        content["reasons"].append("the electrons have not settled")

    change_summary(folder, one_fails)
    assert [view.summary["converged"] for view in load_run(folder).views] == [True, False, True, True]
    change_summary(folder, electrons_fail)
    views = load_run(folder).views
    assert not any(view.summary["converged"] for view in views)
    assert views[0].summary["reasons"] == ["the electrons have not settled"]
    assert views[1].summary["reasons"] == ["R-hat = 1.2", "the electrons have not settled"]


def test_results_table_has_levels_of_the_state(make_states: MakeStates) -> None:
    folder = make_states(*GRID)
    change_summary(folder, lambda content: content["states"][2].update(free_energy_per_atom={"value": None}))
    run = load_run(folder)
    table = results_table(run)
    assert table.index.names == ["rs", "temperature_kelvin", "term"]
    assert table.loc[(1.2, 6000.0, "pressure_gpa"), "value"] == run.result("pressure_gpa", 1)[0]
    assert math.isnan(table.loc[(1.3, 4000.0, "free_energy_per_atom"), "value"])
    assert len(table.xs("free_energy_per_atom", level="term")) == 4


def test_literature_of_several_states_and_nuclei() -> None:
    system = {"rs": [1.25, 1.34], "temperature_kelvin": [1200, 6000]}
    table = literature(system)
    assert set(zip(table["rs"], table["T_kelvin"], strict=True)) == {(1.25, 6000), (1.34, 1200)}
    assert "F" in table
    assert "F" in literature(system | {"nucleus": 1836})
    heavy = literature(system | {"nucleus": "D"})
    assert len(heavy) == len(table)
    assert not {"F", "S"} & set(heavy)
    assert literature({}).empty


@pytest.mark.parametrize(
    ("file", "change", "part"),
    [
        ("metrics.csv", lambda text: text.replace("rs1.3_T6000", "rs1.4_T6000"), "no column of rs = 1.3, T = 6000 K"),
        ("pair_correlation.csv", lambda text: text.replace("\n1.3,6000", "\n1.4,6000"), "no rows of rs = 1.3"),
        ("pair_correlation.csv", lambda text: text.replace("rs,", "density,"), "has no column rs"),
        ("summary.json", lambda text: text.replace('"rs": 1.3', '"rs": "dense"'), "is damaged (states: "),
        ("summary.json", lambda text: text.replace('"rs": 1.3, ', ""), "is damaged (states: 'rs')"),
        ("summary.json", lambda text: text.replace('"rs": 1.3', '"rs": 1.2'), "stands twice"),
        ("summary.json", lambda text: '{"states": 3}', "is damaged (states: "),
        ("summary.json", lambda text: text.replace("6000.0", "7000.0"), "rs = 1.2, T = 6000 K is only in config.yaml"),
        ("summary.json", lambda text: '{"free_energy_per_atom": {"value": 1.0}}', "is only in config.yaml"),
        ("config.yaml", lambda text: text.replace("4000.0", "6000.0"), "stands twice"),
        ("config.yaml", lambda text: text.replace("[1.2, 1.3]", "[1.2]"), "rs = 1.3, T = 4000 K is not in config"),
        ("config.yaml", lambda text: text.replace("1.3", "dense"), "system.rs = "),
    ],
)
def test_damaged_files_of_several_states(
    make_states: MakeStates, file: str, change: Callable[[str], str], part: str
) -> None:
    folder = make_states(*GRID)
    (folder / file).write_text(change((folder / file).read_text()))
    with pytest.raises(ValueError) as error:  # noqa: PT011, PT012  (either line may raise)
        view = load_run(folder).of_state(3)
        _ = view.metrics, view.summary, view.pair_correlation
    message = one_line(error)
    assert part in message
    assert str(folder) in message


def test_columns_that_name_no_state(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,energy_per_atom@hot\n0,1.0\n")
    with pytest.raises(ValueError) as error:  # noqa: PT011  (its message is checked below)
        _ = RunFolder(tmp_path).states
    assert "metrics.csv is damaged ('hot' names no state" in one_line(error)
