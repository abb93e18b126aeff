"""The notebook runs on a small run that the command line has made, and is stored with the outputs of one."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from lightning_vfe.cli import main

IMPORT = re.compile(r"^(?:import|from) .*", re.MULTILINE)
NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "quickstart.ipynb"


def code_cells(notebook: Any) -> dict[str, Any]:
    return {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}


@pytest.mark.parametrize("words", [[], ["system.rs=[1.9,2.0]"]], ids=["one state", "two states"])
def test_quickstart_runs(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "experiment=smoke", "trainer.accelerator=cpu", *words]) == 0
    assert main(["test", "experiment=smoke", "trainer.accelerator=cpu"]) == 0
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    cells = code_cells(notebook)
    assert "runs/smoke" in cells["load"].outputs[0].text, "the latest measured run is the default"
    assert cells["continue"].outputs[0].text.count("F/N = ") == (2 if words else 1), "one line for each state point"
    assert "free_energy_per_atom" in cells["result"].outputs[0].data["text/plain"]
    for name in ("terms", "training", "pairs", "one-body"):
        shown = [output for output in cells[name].outputs if "image/png" in output.get("data", {})]
        assert len(shown) == 1, f"cell {name} must show one figure, it shows {len(shown)}"
    noise = [output for cell in cells.values() for output in cell.outputs if output.get("name") == "stderr"]
    assert not noise, noise


def test_quickstart_is_stored_with_outputs_and_without_paths() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    for name, cell in code_cells(notebook).items():
        assert cell.outputs or name == "parameters", f"cell {name} has no output"
        assert not [
            output for output in cell.outputs if output.output_type == "error" or output.get("name") == "stderr"
        ]
        for output in cell.outputs:
            shown = str({kind: text for kind, text in output.get("data", {}).items() if kind != "image/png"})
            assert not re.search(r"/(home|root|tmp|Users|work)/", output.get("text", "") + shown), name


def test_quickstart_uses_public_names_alone() -> None:
    cells = code_cells(nbformat.read(NOTEBOOK, as_version=4)).values()
    imports = [line for cell in cells for line in IMPORT.findall(cell.source)]
    assert [line for line in imports if "lightning_vfe" in line] == ["import lightning_vfe as lv"]
