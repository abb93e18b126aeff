"""What README and docs show works: their Python, their commands, their links, and the page of all keys."""

import argparse
import itertools
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_vfe.cli.help import EXAMPLES, TRAINER_VERBS, VERBS
from lightning_vfe.resources import resource_folder
from lightning_vfe.workflows.compose import compose_config
from lightning_vfe.workflows.guards import default_dtype, instantiate
from lightning_vfe.workflows.overrides import group_options, parse
from tests.helpers.scripts import load_script

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {str(file.relative_to(ROOT)): file.read_text() for file in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]}
LONGEST_LINE, MOST_LINES = 120, 200
FLAG = r"(?:--multirun|--print-config)"
WORD = r"[\w.+~]+=[^\s`#\\]+|~[\w.]+"
"""A setting; placeholders such as `trainer.max_steps=...` are none."""


def commands() -> list[str]:
    """All commands of the pages, in blocks of code and in sentences, and those of the help, each in one line."""
    shown = "\n".join([*PAGES.values(), *sum(EXAMPLES.values(), ())]).replace("\\\n", " ")
    found = re.findall(rf"lightning-vfe(?: {FLAG})* +(?:{'|'.join(VERBS)})(?: +(?:{FLAG}|{WORD}))*", shown)
    return sorted({" ".join(command.split()) for command in found if "..." not in command})


def benchmarks() -> list[str]:
    """All commands of the pages that run a benchmark."""
    shown = "\n".join(PAGES.values()).replace("\\\n", " ")
    blocks = re.sub(r" +#.*", "", "\n".join(re.findall(r"```bash\n(.*?)```", shown, flags=re.DOTALL)))
    words = re.findall(r"^python (benchmarks/.*)$", blocks, flags=re.MULTILINE) + re.findall(
        r"`python\s(benchmarks/[^`]*)`", shown
    )
    return sorted({" ".join(each.split()) for each in words})


def runs_of(command: str) -> list[list[str]]:
    """The words of every run: one for each combination of a sweep's values."""
    words = [word for word in shlex.split(command)[2:] if not word.startswith(("--", "hydra"))]
    choices = [
        [word] if "[" in word else [f"{k}={v}" for v in value.split(",")] for word, k, value in map(parted, words)
    ]
    return [list(choice) for choice in itertools.product(*choices)]


def parted(word: str) -> tuple[str, str, str]:
    key, _, value = word.partition("=")
    return word, key, value


@pytest.mark.parametrize("command", commands())
def test_a_command_composes_and_finds_its_base(command: str) -> None:
    verb = command.split()[1]
    for words in runs_of(command):
        config = compose_config(parse(words), **({} if verb in TRAINER_VERBS else {"root": verb}))
        base = config.get("base") if verb in TRAINER_VERBS else None
        shipped = base is not None and (resource_folder("data") / base.get("potential_path", "")).is_file()
        with default_dtype(config.get("dtype", "float64")):
            assert not shipped or instantiate(base)


@pytest.mark.parametrize("command", benchmarks())
def test_a_benchmark_takes_the_arguments_of_the_page(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Understood(Exception):
        """The arguments are right; the benchmark itself takes minutes."""

    def parse(self: argparse.ArgumentParser, *words: list[str]) -> None:
        _, unknown = known(self, *words)
        raise Understood if not unknown else AssertionError(f"{command}: {unknown}")

    known = argparse.ArgumentParser.parse_known_args
    for name in ("parse_args", "parse_intermixed_args"):
        monkeypatch.setattr(argparse.ArgumentParser, name, parse)
    words = shlex.split(command)
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    with pytest.raises(Understood):
        runpy.run_path(str(ROOT / words[0]), run_name="__main__")


@pytest.mark.parametrize("name", PAGES)
def test_lines_are_short_and_links_lead_somewhere(name: str) -> None:
    long = [number for number, line in enumerate(PAGES[name].splitlines(), 1) if len(line) > LONGEST_LINE]
    assert not long, f"{name}: lines {long} have more than {LONGEST_LINE} characters"
    targets = re.findall(r"\]\(([^)#\s]+)\)", PAGES[name])
    missing = [each for each in targets if "://" not in each and not (ROOT / name).parent.joinpath(each).is_file()]
    assert not missing


def test_the_readme_is_short_and_shows_the_two_lines_that_others_call() -> None:
    assert len(README.splitlines()) <= MOST_LINES
    assert "pip install -e . && lightning-vfe fit\n" in README
    assert "pip install -e '.[test]' && pytest\n" in README


def test_the_page_of_all_keys_is_up_to_date() -> None:
    assert PAGES["docs/keys.md"] == load_script(ROOT / "docs" / "make_keys.py").page(), "run python docs/make_keys.py"
    for name in group_options()["experiment"]:
        assert f"`{name}`" in PAGES["docs/keys.md"]


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("README.md", "F = -"),
        ("docs/python.md", "free_energy_per_atom@rs1.9"),
        ("docs/own_parts.md", "tensor("),
    ],
)
def test_the_python_of_a_page_runs(name: str, printed: str, tmp_path: Path) -> None:
    """The blocks of a page, one after the other."""
    program = "\n".join(re.findall(r"```python\n(.*?)```", PAGES[name], flags=re.DOTALL))
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert printed in done.stdout
