"""The connection to a database of labels for reading, with one line for a file that cannot be read."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning_vfe.errors import SettingError, one_line


@contextlib.contextmanager
def reading(path: str, key: str) -> Iterator[Any]:
    """ASE's connection to a database whose pages are whole.

    Args:
        path: the file.
        key: the setting that named it, for the messages.

    Raises:
        SettingError: there is no such file, it is no database, or what is read inside the block is damaged.
    """
    from ase.db import connect

    if not Path(path).is_file():
        reason = "is a folder" if Path(path).is_dir() else "does not exist"
        raise SettingError(key, path, reason, "give the file labels.db that lightning-vfe label makes")
    try:
        with contextlib.closing(sqlite3.connect(path)) as pages:
            (found,) = pages.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        yield connect(path, type="db", use_lock_file=False)
    except SettingError:
        raise
    except Exception as error:  # the decoders of a row raise whatever damaged bytes lead them to
        reason = f"is no ASE database, or a damaged one ({one_line(error)[:200]})"
        raise SettingError(key, path, reason, "take another file, or a copy of this one") from error
