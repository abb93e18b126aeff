"""The floors of the package: a file imports only from its own floor or from one below; training knows Lightning."""

import ast
from pathlib import Path

import pytest

import lightning_vfe

PACKAGE = Path(lightning_vfe.__file__).parent
FLOORS = {
    "__init__": 0,
    "resources": 0,
    "errors": 0,
    "files": 0,
    "signals": 0,
    "progress": 0,
    "physics": 0,
    "forward_laplacian": 0,
    "models": 1,
    "sampling": 2,
    "optim": 2,
    "state": 3,
    "log_z": 3,
    "labels": 3,
    "analysis": 2,
    "training": 4,
    "workflows": 5,
    "cli": 6,
    "__main__": 6,
}
# stricter than their floor: analysis reads a run's folder, and the chains know callables instead of models
ONLY = {
    "analysis": {"analysis", "physics", "resources", "errors", "files"},
    "sampling": {"sampling", "physics", "errors"},
    "log_z": {"log_z", "sampling", "physics", "errors"},
    "forward_laplacian": {"forward_laplacian"},
}
# the trainings know what they share, and not each other
TRAININGS = ("variational", "potential", "flow_mle")
# The face of the package names what stands in all of it.
FILES = sorted(file for file in PACKAGE.rglob("*.py") if file != PACKAGE / "__init__.py")


def imported_modules(file: Path) -> set[str]:
    """Dotted names of all modules that a file imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import in line {node.lineno}; write the whole name"
            assert node.module is not None
            # `from lightning_vfe import physics` names the part in the second half
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def part_of(file: Path) -> str:
    """The part of the package that a file belongs to."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def package_parts(names: set[str]) -> set[str]:
    """Parts of this package among imported names."""
    found = {name.split(".")[1] for name in names if name.startswith("lightning_vfe.")}
    return {part if part in FLOORS else "__init__" for part in found}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_stay_on_their_floor(file: Path) -> None:
    part, names = part_of(file), imported_modules(file)
    assert part in FLOORS, f"{file}: give the part {part!r} a floor"
    allowed = ONLY.get(part, {other for other, floor in FLOORS.items() if floor <= FLOORS[part]})
    used = package_parts(names)
    assert used <= allowed | {"__init__"}, f"{file} on floor {FLOORS[part]} imports {sorted(used - allowed)}"
    tops = {name.split(".")[0] for name in names}
    if part != "training":
        assert not tops & {"lightning", "pytorch_lightning"}, f"{file}: only training/ imports Lightning"


def test_physics_has_no_modules() -> None:
    for file in (PACKAGE / "physics").rglob("*.py"):
        assert "torch.nn.Module" not in imported_modules(file), f"{file}: physics holds functions of tensors"


@pytest.mark.parametrize("training", TRAININGS)
def test_trainings_stand_side_by_side(training: str) -> None:
    others = {f"lightning_vfe.training.{other}" for other in TRAININGS if other != training}
    for file in (PACKAGE / "training" / training).rglob("*.py"):
        used = {".".join(name.split(".")[:3]) for name in imported_modules(file)}
        assert not used & others, f"{file} imports {sorted(used & others)}"


@pytest.mark.parametrize("shared", ["supervised", "run"])
def test_shared_parts_of_training_know_no_training(shared: str) -> None:
    others = {f"lightning_vfe.training.{other}" for other in TRAININGS}
    for file in (PACKAGE / "training" / shared).rglob("*.py"):
        used = {".".join(name.split(".")[:3]) for name in imported_modules(file)}
        assert not used & others, f"{file} imports {sorted(used & others)}"
