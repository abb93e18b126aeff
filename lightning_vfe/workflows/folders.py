"""Folders of runs: which one is free, and taking it before another command does."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from lightning_vfe.errors import SettingError

RUNS = Path("runs")


def is_used(folder: Path) -> bool:
    """Whether something is in a folder."""
    return folder.is_dir() and any(folder.iterdir())


def free_folder(name: str) -> tuple[Path, tuple[str, ...]]:
    """runs/NAME, or the next runs/NAME-2, ... that does not exist yet, and lines that tell the user.

    Raises:
        SettingError: the name is no name of a folder.
    """
    if Path(name).name != name or name in ("", ".."):
        raise SettingError(
            "name", name or repr(name), f"is no name of a folder in {RUNS}", "give a word, or run_dir=..."
        )
    if not (RUNS / name).exists():
        return RUNS / name, ()
    number = 1 + max([1, *(number for number, _ in numbered(name))])
    folder = RUNS / f"{name}-{number}"
    return folder, (f"{RUNS / name} holds an earlier run, which stays as it is; this one goes to {folder}",)


def numbered(name: str) -> list[tuple[int, Path]]:
    """Folders runs/NAME (number 1), runs/NAME-2, ..., in the order of their numbers."""
    found = []
    for folder in RUNS.glob("*"):
        match = re.fullmatch(re.escape(name) + r"(?:-(\d+))?", folder.name)
        if match and folder.is_dir():
            found.append((int(match[1] or 1), folder))
    return sorted(found)


@contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Make a folder that does not exist; where the block fails and leaves it empty, it goes again.

    Raises:
        FileExistsError: somebody else has made it.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir()
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for place in missing:
                place.rmdir()
        raise


@contextmanager
def only_command_in(folder: Path) -> Iterator[None]:
    """Inside it, no other command of this machine writes into a run folder; it is made if it is missing.

    Raises:
        SettingError: another command has the folder.
    """
    with ExitStack() as stack:
        with suppress(FileExistsError):
            stack.enter_context(made_folder(folder))
        with only_command_on(folder, "run_dir"):
            yield


@contextmanager
def only_command_on(path: Path, key: str) -> Iterator[None]:
    """Inside it, no other command of this machine writes into a file or folder that exists.

    The lock is that of the system: it leaves no file, and ends with the process. A file system without such locks, as
    some of clusters, gives none.

    Args:
        path: of the file or folder.
        key: setting that names it.

    Raises:
        SettingError: another command has it.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            remedy = "wait until it has ended, or give another one"
            raise SettingError(key, path, "is in use by another command", remedy) from error
        except OSError:
            pass
        yield
    finally:
        os.close(descriptor)


def new_sweep_folder(name: str) -> Path:
    """The next free folder runs/NAME-sweep, runs/NAME-sweep-2, ..."""
    return free_folder(f"{name}-sweep")[0]


@contextmanager
def taken_sweep_folder(name: str) -> Iterator[Path]:
    """Make the folder of `new_sweep_folder`, or the next one where another command is faster; see `made_folder`."""
    with ExitStack() as stack:
        while True:
            folder = new_sweep_folder(name)
            with suppress(FileExistsError):
                stack.enter_context(made_folder(folder))
                break
        yield folder


def past_sweep_folder(name: str, marker: str) -> Path:
    """The latest of the folders runs/NAME-sweep, runs/NAME-sweep-2, ... that has a file of the marker's name.

    Raises:
        CommandError: there is none.
    """
    for _, folder in reversed(numbered(f"{name}-sweep")):
        if (folder / marker).is_file():
            return folder
    raise SettingError(
        "run_dir", None, f"finds no sweep {RUNS / name}-sweep", "run fit --multirun first, or give run_dir=..."
    )
