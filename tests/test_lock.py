"""requirements.lock has one release with its checksums for each package of the tests and of the docs."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BOUNDS = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in ("test", "docs"))]
LINUX = {
    "python_version": "3.11",
    "python_full_version": "3.11.0",
    "sys_platform": "linux",
    "platform_machine": "x86_64",
}


def locked() -> dict[str, tuple[Version, int]]:
    """Version and number of checksums of each package."""
    text = re.sub(r"^#.*\n", "", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    found = [re.fullmatch(r"([\w.-]+)==([^\s;]+)((?:\s+--hash=sha256:[0-9a-f]{64})+)", line.rstrip()) for line in lines]
    assert all(found), "a line is not NAME==VERSION with checksums"
    return {each[1]: (Version(each[2]), each[3].count("--hash")) for each in found if each}


@pytest.mark.parametrize("bound", sorted({bound for bounds in BOUNDS for bound in bounds}))
def test_the_locked_release_is_within_the_bounds(bound: str) -> None:
    wanted = Requirement(bound)
    if wanted.marker is not None and not wanted.marker.evaluate(LINUX):
        pytest.skip("not on Linux")
    name = re.sub(r"[-_.]+", "-", wanted.name).lower()
    assert wanted.specifier.contains(locked()[name][0]), "run the command of CONTRIBUTING.md, section Locked packages"


def test_torch_is_the_build_for_cpus_and_nothing_is_without_a_checksum() -> None:
    packages = locked()
    assert packages["torch"][0].local == "cpu"
    assert not [name for name in packages if name.startswith("nvidia")]
    assert min(count for _, count in packages.values()) >= 1


def test_the_workflows_install_it_before_the_command_of_the_readme() -> None:
    for file in (".ci/run", ".github/workflows/ci.yml"):
        text = (ROOT / file).read_text()
        assert text.index("--require-hashes -r requirements.lock") < text.index("pip install -e '.[test]' && pytest")
