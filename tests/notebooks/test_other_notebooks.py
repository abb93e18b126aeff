"""The notebooks beside the quickstart make their own small runs; they run, and are stored with outputs."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"
FIGURES = {
    "terms_and_structure": ("terms", "pairs", "structure-factor", "momentum"),
    "potential_and_correction": ("report", "weights-figure"),
    "equation_of_state": ("isotherms", "free-energy", "hugoniot"),
    "own_wavefunction": ("training", "line"),
    "several_processes": ("curves",),
}
"""Cells that show a figure, of each notebook."""
QUICK_LOG_Z = ("target_error_per_atom=0.2", "num_chains=4", "num_sweeps=40", "pilot_sweeps=10", "num_bootstraps=10")
SMALLER = {
    r"trainer\.max_steps=\d+": "trainer.max_steps=4",
    r"num_proton_walkers=\d+": "num_proton_walkers=12",
    r"num_proton_steps=\d+": "num_proton_steps=2",
    r"num_electron_steps=6": "num_electron_steps=2",
    r"num_electron_walkers=\d+": "num_electron_walkers=2",
    r"pilot_sweeps=\d+": "pilot_sweeps=8",
    r"test_steps=\d+": "test_steps=12",
    r"num_steps = \d+": "num_steps = 3",
    r"num_configurations=\d+": "num_configurations=20",
    r"\.sample\(\d+": ".sample(6",
    r"num_sweeps=\d+": "num_sweeps=6",
    r'"log_z\.target_error_per_atom=[\d.]+"': ", ".join(f'"log_z.{word}"' for word in QUICK_LOG_Z),
}
"""Sizes of the stored runs, and those of the tests."""
IMPORT = re.compile(r"^\s*(?:import|from) (?P<what>.*lightning_vfe.*)", re.MULTILINE)
LOCAL_PATH = re.compile(r"/(home|root|tmp|Users|work)/")


def read(name: str) -> Any:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_cells(notebook: Any) -> dict[str, Any]:
    return {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}


def check_outputs(name: str, notebook: Any) -> None:
    """Figures where they belong, no warning, no error."""
    cells = code_cells(notebook)
    outputs = [output for cell in cells.values() for output in cell.outputs]
    noise = [each for each in outputs if each.output_type == "error" or each.get("name") == "stderr"]
    assert not noise, noise
    with_figure = [
        key for key, cell in cells.items() if any("image/png" in each.get("data", {}) for each in cell.outputs)
    ]
    assert tuple(with_figure) == FIGURES[name]


def test_each_notebook_is_tested() -> None:
    assert {file.stem for file in FOLDER.glob("*.ipynb")} == {*FIGURES, "quickstart"}


@pytest.mark.parametrize("name", FIGURES)
def test_it_runs(name: str, tmp_path: Path) -> None:
    notebook = read(name)
    for cell in code_cells(notebook).values():
        for pattern, replacement in SMALLER.items():
            cell.source = re.sub(pattern, replacement, cell.source)
    NotebookClient(notebook, timeout=200, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    check_outputs(name, notebook)


@pytest.mark.parametrize("name", FIGURES)
def test_it_is_stored_with_outputs_and_without_paths(name: str) -> None:
    notebook = read(name)
    nbformat.validate(notebook)
    check_outputs(name, notebook)
    for cell in code_cells(notebook).values():
        for output in cell.outputs:
            shown = str({kind: text for kind, text in output.get("data", {}).items() if kind != "image/png"})
            assert not LOCAL_PATH.search(output.get("text", "") + shown), cell.id


@pytest.mark.parametrize("name", FIGURES)
def test_it_uses_public_names_alone(name: str) -> None:
    cells = code_cells(read(name)).values()
    assert [found for cell in cells for found in IMPORT.findall(cell.source)] == ["lightning_vfe as lv"]
