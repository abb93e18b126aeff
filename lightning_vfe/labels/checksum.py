"""Checksums of a database's rows and metadata: a number that a disk or a copy has changed is found when it is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms

from lightning_vfe.errors import SettingError
from lightning_vfe.files import CHECKSUM, has_changed

_REMEDY = "take a copy of the file, or delete the row and label its configuration again"


def row_checksum(atoms: Atoms, keys: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """Checksum of everything that a row holds.

    Args:
        atoms: positions and cell.
        keys: the key-value pairs; an older checksum among them is left out.
        data: the label.
    """
    digest = hashlib.sha256()
    for array in (atoms.numbers, atoms.positions, np.asarray(atoms.cell)):
        _update(digest, array)
    kept = {name: value for name, value in keys.items() if name != CHECKSUM}
    digest.update(json.dumps(kept, sort_keys=True, default=float).encode())
    for name, value in sorted(data.items()):
        digest.update(name.encode())
        digest.update(value.encode()) if isinstance(value, str) else _update(digest, value)
    return f"sha256-{digest.hexdigest()[:16]}"  # the word in front tells ASE that it is no number


def check_row_checksum(row: Any, path: str, key: str) -> None:
    """Refuse a row that has changed since it was written; rows of version 0.2 have no checksum.

    Raises:
        SettingError: it has changed.
    """
    stored = row.get(CHECKSUM)
    if stored is not None and stored != row_checksum(row.toatoms(), row.key_value_pairs, row.data):
        raise SettingError(key, path, f"is damaged: row {row.id} does not have its checksum", _REMEDY)


def check_metadata_checksum(metadata: Mapping[str, Any], path: str, key: str) -> None:
    """Refuse metadata that have changed since they were written.

    Raises:
        SettingError: they have.
    """
    if has_changed(metadata):
        reason = "is damaged: its metadata do not have their checksum"
        raise SettingError(key, path, reason, "take a copy of the file, or label the configurations again")


def _update(digest: Any, array: Any) -> None:
    numbers = np.asarray(array, dtype="<f8")
    digest.update(f"{numbers.shape}".encode())
    digest.update(numbers.tobytes())
