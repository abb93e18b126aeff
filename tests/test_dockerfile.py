"""The Dockerfile copies all that the wheel is built from, and installs a torch within the bounds of the package."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "Dockerfile").read_text()
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_it_copies_what_the_wheel_needs() -> None:
    copied = {name for line in re.findall(r"^COPY (.*) \S+$", TEXT, flags=re.MULTILINE) for name in line.split()}
    wheel = SETTINGS["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    project = SETTINGS["project"]
    assert copied == {"pyproject.toml", project["readme"], *project["license-files"], *wheel}
    assert all((ROOT / name).exists() for name in copied)


def test_it_installs_the_torch_of_the_package_and_runs_its_command() -> None:
    (torch,) = (each for each in SETTINGS["project"]["dependencies"] if each.startswith("torch>"))
    assert f'"{torch}"' in TEXT
    (command,) = SETTINGS["project"]["scripts"]
    assert f'ENTRYPOINT ["{command}"]' in TEXT
