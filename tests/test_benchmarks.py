"""Benchmarks are run by hand: their names from the package must exist, and the check of an accelerator runs."""

import ast
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.name)
def test_names_from_the_package_exist(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lightning_vfe"):
            module = importlib.import_module(node.module or "")
            missing = [each.name for each in node.names if not hasattr(module, each.name)]
            assert not missing, f"{file.name}: {node.module} has no {missing}"


def test_check_of_an_accelerator_runs_on_the_cpu(tmp_path: Path) -> None:
    file = tmp_path / "check.json"
    words = ["--seconds", "20", "--device", "cpu", "--sizes", "2:4x2", "--experiment", "smoke", "--json", str(file)]
    environment = os.environ | {"PYTHONPATH": str(FOLDER.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(FOLDER / "gpu_check.py"), *words], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads(file.read_text())
    assert max(content["errors"].values()) < 1e-9
    assert {"energies", "scores", "solve"} <= {row["phase"] for row in content["phases"]}
    assert "FAILED" not in done.stdout
