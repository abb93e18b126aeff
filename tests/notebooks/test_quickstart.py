"""The notebook runs on a small run that the command line has made, and is stored without outputs."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from lightning_vfe.cli import main

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
    assert "runs/smoke" in cells["load"].outputs[0].text, "the latest run is the default"
    assert "free_energy_per_atom" in cells["result"].outputs[0].data["text/plain"]
    for name in ("terms", "training", "pairs"):
        shown = [output for output in cells[name].outputs if "image/png" in output.get("data", {})]
        assert len(shown) == 1, f"cell {name} must show one figure, it shows {len(shown)}"
    noise = [output for cell in cells.values() for output in cell.outputs if output.get("name") == "stderr"]
    assert not noise, noise


def test_quickstart_is_stored_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    for name, cell in code_cells(notebook).items():
        assert not cell.outputs, f"strip the outputs of cell {name}"
        assert cell.execution_count is None, f"strip the outputs of cell {name}"
