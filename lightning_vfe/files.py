"""Files that are written whole or not at all, and that show whether they have changed since."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

CHECKSUM = "checksum"
"""Entry of a mapping, column of a table, and word in the last line of a text, that holds the checksum of the rest."""
_LAST_LINE = f"# {CHECKSUM} "


def checksum(content: Mapping[str, Any]) -> str:
    """Checksum of what JSON keeps of a mapping, without the entry CHECKSUM."""
    kept = {name: value for name, value in content.items() if name != CHECKSUM}
    return _digest(json.dumps(kept, sort_keys=True))


def has_changed(content: Mapping[str, Any]) -> bool:
    """Whether a mapping differs from the checksum in it; files of version 0.2 have none."""
    return CHECKSUM in content and content[CHECKSUM] != checksum(content)


def with_checksum_line(text: str) -> str:
    """A text of lines with a comment behind it that holds its checksum."""
    return f"{text}{_LAST_LINE}{_digest(text)}\n"


def has_changed_text(text: str) -> bool:
    """Whether a text differs from the checksum in its last line; files of version 0.2 have none."""
    lines = text.splitlines()
    if not lines or not lines[-1].startswith(_LAST_LINE):
        return False
    return lines[-1] != _LAST_LINE + _digest("".join(f"{line}\n" for line in lines[:-1]))


def row_checksum(row: Mapping[str, Any]) -> str:
    """Checksum of a row of a table, by column, without the column CHECKSUM.

    Names and values enter in their order, empty values do not: columns that turn up later leave it as it is.
    """
    cells = (f"{name}={value}" for name, value in row.items() if name != CHECKSUM and value not in (None, ""))
    # the word in front keeps readers from taking it for a number
    return f"crc32-{zlib.crc32(','.join(cells).encode()):08x}"


def row_has_changed(row: Mapping[str, str]) -> bool:
    """Whether a row differs from the checksum in it; rows of version 0.2 have none."""
    return bool(row.get(CHECKSUM)) and row[CHECKSUM] != row_checksum(row)


def _digest(text: str) -> str:
    # the word in front keeps readers from taking it for a number
    return f"sha256-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


@contextmanager
def whole_file(path: str | os.PathLike[str], mode: str = "w", **options: Any) -> Iterator[IO[Any]]:
    """A stream whose content becomes the file when the block ends.

    It is written under another name into the same folder, waits until it is on the disk, and is renamed. A process
    that is killed at any moment leaves the file before whole, and at most a file NAME.PID.new beside it.

    Args:
        path: the file; its folder is made. An old file is replaced.
        mode: "w" for text in UTF-8, "wb" for bytes.
        options: of `open`, such as newline="".

    Raises:
        OSError: the folder cannot be written to.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    if "b" not in mode:
        options["encoding"] = "utf-8"  # whatever the language of the terminal
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


def save_tensors(content: Any, path: str | Path) -> None:
    """Write what torch.save takes, whole or not at all.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    import torch

    with whole_file(path, "wb") as stream:
        try:
            torch.save(content, stream)
        except RuntimeError as error:
            # torch hides what the disk has said behind a message about positions in the file
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
