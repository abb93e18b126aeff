"""Reading a run's folder, and one clear line for every file that is missing or damaged."""

import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_vfe.analysis.run import RunFolder, latest_run, literature, load_run, results_table
from lightning_vfe.analysis.terms import TERMS, value_with_error

MakeRun = Callable[..., Path]


def test_reads_all_files(make_run: MakeRun) -> None:
    run = load_run(make_run())
    assert run.config["cell"]["rs"] == 1.25, "references between the settings are resolved"
    assert run.metrics.index.name == "step"
    assert len(run.metrics) == 500
    assert run.result("free_energy_per_atom") == (-0.547, 0.0005)
    assert run.pair_correlation.index.name == "r_bohr"
    assert "proton_proton_error" in run.pair_correlation
    assert run.system["temperature_kelvin"] == 6000.0
    assert load_run(make_run(protons="fixed")).system["temperature_kelvin"] == 0.0


def test_values_of_a_step_may_stand_in_several_rows(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,a,b\n0,1.0,\n0,,2.0\n1,3.0,4.0\n")
    metrics = load_run(tmp_path).metrics
    assert metrics.loc[0].tolist() == [1.0, 2.0]
    assert metrics.loc[1].tolist() == [3.0, 4.0]


def test_results_table(make_run: MakeRun) -> None:
    table = results_table(load_run(make_run()))
    assert list(table.columns) == ["quantity", "value", "error", "unit"]
    assert list(table.index[:3]) == ["free_energy_per_atom", "energy_per_atom", "entropy_per_atom"]
    assert table.loc["pressure_gpa"].tolist() == ["virial pressure", 645.0, 1.75, "GPa"]
    assert table.loc["entropy_per_atom", "unit"] == "k_B/atom"
    assert "diagnostics" not in table.index
    assert "system" not in table.index


def test_what_is_not_reported_is_nan(make_run: MakeRun) -> None:
    folder = make_run()
    summary = json.loads((folder / "summary.json").read_text())
    summary["free_energy_per_atom"] = {"value": None, "error": None}
    summary["added_later"] = {"value": 1.0, "error": 0.5}
    (folder / "summary.json").write_text(json.dumps(summary))
    table = results_table(load_run(folder))
    assert math.isnan(table.loc["free_energy_per_atom", "value"])
    assert table.loc["added_later", "value"] == 1.0, "terms without a known name stay in the table"


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    text = str(error.value)
    assert "\n" not in text, text
    return text


def test_missing_files_name_the_command(make_run: MakeRun, tmp_path: Path) -> None:
    run = load_run(make_run(tested=False))
    for name in ("summary", "pair_correlation"):
        with pytest.raises(FileNotFoundError) as error:
            getattr(run, name)
        assert f"lightning-vfe test run_dir={run.folder}" in one_line(error)
    for name in ("config", "metrics"):
        with pytest.raises(FileNotFoundError) as error:
            getattr(RunFolder(tmp_path), name)
        assert "lightning-vfe fit" in one_line(error)
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError) as error:
            load_run(folder)
        assert str(folder) in one_line(error)


@pytest.mark.parametrize(
    ("file", "text", "attribute"),
    [
        ("metrics.csv", "", "metrics"),
        ("metrics.csv", "step,free_energy_per_atom\n", "metrics"),
        ("metrics.csv", "epoch,loss\n0,1.0\n", "metrics"),
        ("metrics.csv", "step,loss\n0,oops\n", "metrics"),
        ("metrics.csv", "step,loss\n0,1\n1,2,3,4\n", "metrics"),
        ("summary.json", '{"free_energy_per_atom": {"val', "summary"),
        ("summary.json", "[]", "summary"),
        ("config.yaml", "system: {rs: 1.25\n", "config"),
        ("config.yaml", "system: {rs: '${nowhere}'}\n", "config"),
        ("config.yaml", "name: other\n", "config"),
    ],
)
def test_damaged_files_are_named(make_run: MakeRun, file: str, text: str, attribute: str) -> None:
    folder = make_run(num_steps=5)
    (folder / file).write_text(text)
    with pytest.raises(ValueError) as error:  # noqa: PT011  (its message is checked below)
        getattr(load_run(folder), attribute)
    assert str(folder / file) in one_line(error)


def test_latest_run(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older, newer = make_run(num_steps=5), make_run(num_steps=6)
    os.utime(older / "metrics.csv", (1e9, 1e9))
    assert latest_run(tmp_path / "runs") == newer
    monkeypatch.chdir(tmp_path)
    assert latest_run() == Path("runs") / newer.name
    monkeypatch.chdir(older.parent)
    assert latest_run().resolve() == newer.resolve(), "from a folder beside runs/"
    with pytest.raises(FileNotFoundError) as error:
        latest_run(tmp_path / "nowhere")
    assert "lightning-vfe fit" in one_line(error)


def test_literature_at_the_same_density_and_temperature(make_run: MakeRun) -> None:
    table = literature(load_run(make_run()).system)
    assert set(table["rs"]) == {1.25}
    assert set(table["T_kelvin"]) == {6000}
    assert {"CEIMC", "VFE2023"} <= set(table["method"])
    assert literature({"rs": 3.21, "temperature_kelvin": 6000.0}).empty


def test_value_with_error_has_two_digits_of_the_error() -> None:
    assert value_with_error(-0.543219, 0.000512) == "-0.54322 ± 0.00051"
    assert value_with_error(638.61, 21.3) == "639 ± 21"
    assert value_with_error(0.0264351, math.nan) == "0.02644"
    assert value_with_error(123456.7, 0.0) == "123457"
    assert value_with_error(math.nan, 0.1) == "not reported"


def test_tables_and_figures_share_symbols() -> None:
    """A symbol in print is that of the figures, without the marks of mathematics."""
    for name, term in TERMS.items():
        if name in ("base_free_energy_per_atom", "log_det_per_atom", "molecular_fraction", "local_energy_variance"):
            continue  # formulas, and words where a table has no Greek letters
        bare = re.sub(r"\\Delta |\\mathrm|[${}\\]", lambda mark: "d" if "Delta" in mark[0] else "", term.symbol)
        assert bare == term.plain_symbol, name
