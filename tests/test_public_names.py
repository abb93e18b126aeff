"""The names that stay: the same for programs and for type checkers, and quick to import."""

import ast
import importlib
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
    typed = {name for homes in (lv._HOMES, lv._CONTRACT_HOMES) for names in homes.values() for name in names}
    assert found == {name: f"lightning_vfe.{lv._HOME_OF[name]}" for name in typed}


def test_an_unknown_name_says_where_to_look():
    with pytest.raises(AttributeError, match="has no attribute 'Sytsem'; the public names are in __all__"):
        _ = lv.Sytsem


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, lightning_vfe; print([m for m in ('torch', 'lightning', 'schnetpack') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
