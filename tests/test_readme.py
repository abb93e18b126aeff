"""What the README shows works: its Python example, and the keys and experiments of its commands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_vfe._cli.compose import compose_config
from lightning_vfe._cli.overrides import group_options, parse

README = (Path(__file__).parents[1] / "README.md").read_text()
COMMANDS = sorted(set(re.findall(r"lightning-vfe (?:fit|validate|test)(?: [\w.]+=[^\s`#]+)*", README)))


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_compose(command: str) -> None:
    assert compose_config(parse(command.split()[2:]))


def test_all_experiments_are_listed() -> None:
    for name in group_options()["experiment"]:
        assert f"`{name}`" in README


def test_the_python_example_runs(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    done = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert {"summary.json", "checkpoints"} <= {file.name for file in (tmp_path / "my_run").iterdir()}
