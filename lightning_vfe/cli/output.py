"""Printing that ends no run: a closed pipe, a closed terminal, a full disk, or characters that a terminal lacks."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from typing_extensions import override

PLAIN = {"\N{MINUS SIGN}": "-", "\N{PLUS-MINUS SIGN}": "+-"}
"""What stands for a character that a terminal does not have; a question mark for all others."""


def _plain(error: UnicodeError) -> tuple[str, int]:
    """The handler `plain` of characters that an encoding does not have."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAIN.get(letter, "?") for letter in error.object[error.start : error.end]), error.end


codecs.register_error("plain", _plain)


class _LastingFile(io.FileIO):
    """A file that takes what nobody can read any more for written."""

    @override
    def write(self, content: Any, /) -> int:
        """Number of bytes written, or dropped."""
        try:
            return super().write(content)
        except OSError:
            return memoryview(content).nbytes


@contextmanager
def lasting_output() -> Iterator[None]:
    """Inside it, writing to stdout and stderr raises no OSError.

    Streams that somebody else has put in their place, such as those of a notebook, stay.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _lasting(sys.stdout, sys.__stdout__), _lasting(sys.stderr, sys.__stderr__)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before


def _lasting(stream: TextIO | None, of_process: TextIO | None) -> TextIO:
    if stream is None:  # closed by the shell
        return open(os.devnull, "w")
    if stream is not of_process or not isinstance(stream, io.TextIOWrapper):
        return stream
    with suppress(OSError):
        stream.flush()  # what was printed before comes first
    raw = _LastingFile(stream.fileno(), "w", closefd=False)
    is_unbuffered = isinstance(stream.buffer, io.RawIOBase)
    return io.TextIOWrapper(
        raw if is_unbuffered else io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="plain" if stream.errors == "strict" else stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
