"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def whole_file(path: str | os.PathLike[str], mode: str = "w", **options: Any) -> Iterator[IO[Any]]:
    """A stream whose content becomes the file when the block ends.

    It is written under another name into the same folder, waits until it is on the disk, and is renamed. A process
    that is killed at any moment leaves the file before whole, and at most a file NAME.PID.new beside it.

    Args:
        path: the file; its folder is made. An old file is replaced.
        mode: "w" for text, "wb" for bytes.
        options: of `open`, such as newline="".

    Raises:
        OSError: the folder cannot be written to.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with fresh.open(mode, **options) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        rename(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write what JSON can hold, whole or not at all.

    Raises:
        OSError: the folder cannot be written to.
        TypeError: JSON cannot hold the content.
    """
    with whole_file(path) as stream:
        stream.write(json.dumps(content, indent=2) + "\n")


def rename(source: Path, target: Path) -> None:
    """Rename within a folder, on the disk when it returns."""
    source.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
