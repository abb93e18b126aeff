"""The names that stay: the same for programs and for type checkers, and quick to import."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_vfe as lv


@pytest.mark.parametrize("name", sorted(lv._HOME_OF))
def test_every_public_name_is_there(name):
    home = importlib.import_module(f"lightning_vfe.{lv._HOME_OF[name]}")
    assert getattr(lv, name) is getattr(home, name)
    assert getattr(lv, name).__doc__


def test_type_checkers_see_the_same_names():
    stub = ast.parse(Path(lv.__file__).with_name("__init__.pyi").read_text())
    found = {
        alias.asname: node.module for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    typed = {
        name for homes in (lv._HOMES, lv._PART_HOMES, lv._CONTRACT_HOMES) for names in homes.values() for name in names
    }
    assert found == {name: f"lightning_vfe.{lv._HOME_OF[name]}" for name in typed}


def test_the_page_lists_the_names_of_a_notebook():
    page = (Path(__file__).parents[1] / "docs" / "python.md").read_text()
    section = page.partition("## Public names")[2].partition("\n## ")[0]
    table = "\n".join(line for line in section.splitlines() if line.startswith("|"))
    listed = set(re.findall(r"`lv\.(\w+)`", table))
    assert listed == set(lv.__all__) - {"__version__"}
    assert 20 <= len(listed) <= 30


def test_an_unknown_name_says_where_to_look():
    with pytest.raises(AttributeError, match="has no attribute 'Sytsem'; the public names are in __all__"):
        _ = lv.Sytsem


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, lightning_vfe; print([m for m in ('torch', 'lightning', 'schnetpack') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
