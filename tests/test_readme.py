"""What the README shows works: its Python example, and the keys and experiments of its commands."""

import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_vfe._cli.compose import compose_config
from lightning_vfe._cli.guards import default_dtype, instantiate
from lightning_vfe._cli.help import EXAMPLES
from lightning_vfe._cli.overrides import group_options, parse
from lightning_vfe.resources import resource_folder

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SHOWN = "\n".join([README, *(file.read_text() for file in (ROOT / "docs").glob("*.md")), *sum(EXAMPLES.values(), ())])
WORD = r"(?:--multirun|[\w.]+=[^\s`#\\]+)"
COMMANDS = sorted(set(re.findall(rf"lightning-vfe (?:fit|validate|test)(?: {WORD})*", SHOWN)))


def runs_of(command: str) -> list[list[str]]:
    """The words of every run: one for each combination of a sweep's values."""
    words = [word for word in command.split()[2:] if word != "--multirun"]
    choices = [
        [word] if "[" in word else [f"{k}={v}" for v in value.split(",")] for word, k, value in map(parted, words)
    ]
    return [list(choice) for choice in itertools.product(*choices)]


def parted(word: str) -> tuple[str, str, str]:
    key, _, value = word.partition("=")
    return word, key, value


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_find_their_base(command: str) -> None:
    for words in runs_of(command):
        config = compose_config(parse(words))
        base = config.get("base")
        shipped = base is not None and (resource_folder("data") / base.get("potential_path", "")).is_file()
        with default_dtype(config.dtype):
            assert not shipped or instantiate(base)


def test_all_experiments_are_listed() -> None:
    for name in group_options()["experiment"]:
        assert f"`{name}`" in README


def test_the_python_example_runs(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    done = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert {"summary.json", "checkpoints"} <= {file.name for file in (tmp_path / "my_run").iterdir()}
