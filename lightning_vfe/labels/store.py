"""Write the database of labels: configurations that wait, their labels, and those that failed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_vfe.errors import SettingError
from lightning_vfe.files import CHECKSUM, checksum, rename
from lightning_vfe.labels.checksum import check_metadata_checksum, check_row_checksum, row_checksum
from lightning_vfe.labels.connection import reading
from lightning_vfe.labels.database import DONE, FAILED, PENDING, LabelState
from lightning_vfe.labels.label import Configuration, Label
from lightning_vfe.labels.schema import (
    FORMAT,
    MEANINGS,
    UNITS,
    UNITS_OF_ROW,
    check_metadata,
    schnetpack_entries,
    settings_name,
)

SCALARS = ("free_energy", "energy", "pressure_gpa", "energy_error")


class LabelStore:
    """The database that `LabelDatabase` reads. Configurations enter it before they are labelled: nothing is lost."""

    def __init__(self, path: str | Path, states: Sequence[LabelState], calculator: Mapping[str, Any]) -> None:
        """Open or make the database.

        Args:
            path: the file; its folder is made.
            states: the state points.
            calculator: its `_target_` and settings.

        Raises:
            ValueError: the file holds something else, or labels of other states or another calculator.
        """
        from ase.db import connect

        self.path, key = str(path), "database"
        self.settings = settings_name(calculator)
        described = [vars(state) for state in states]
        is_new = not Path(path).exists() or _is_empty(self.path, key)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        if is_new:
            entries = {"format": FORMAT, "units": UNITS, "meanings": MEANINGS, "calculator": dict(calculator)}
            _make(self.path, entries | {"settings": self.settings, "states": described})
        # a lock file left by a killed process would block for ever, and sqlite locks by itself
        self._connection = connect(self.path, type="db", use_lock_file=False)
        if is_new:
            return
        with reading(self.path, key) as connection:
            metadata = dict(connection.metadata)
            check_metadata(metadata, self.path, key)
            check_metadata_checksum(metadata, self.path, key)
            for row in connection.select(sort="id"):
                check_row_checksum(row, self.path, key)
        for name, value, what in (("settings", self.settings, "calculator"), ("states", described, "states")):
            if metadata[name] != value:
                raise SettingError(
                    key,
                    self.path,
                    f"was started with the {what} {metadata[name]}, not {value}",
                    "keep them, or give another file",
                )

    @property
    def metadata(self) -> dict[str, Any]:
        """A copy of the metadata."""
        return dict(self._connection.metadata)

    def update_metadata(self, **entries: Any) -> None:
        """Set entries of the metadata, which become JSON."""
        _update_metadata(self._connection, entries)

    def count(self, **properties: Any) -> int:
        """Number of rows with these properties, such as state="done" or round=0."""
        number: int = self._connection.count(**properties)
        return number

    def add_pending(
        self, batches: Sequence[tuple[LabelState, Sequence[Configuration]]], number: int, origin: str
    ) -> None:
        """Store all configurations of a round in one transaction.

        Args:
            batches: configurations of every state.
            number: of the round.
            origin: where they come from, a word.
        """
        with self._connection:
            for state, configurations in batches:
                keys = {
                    "state": PENDING,
                    "rs": state.rs,
                    "temperature_kelvin": state.temperature_kelvin,
                    "round": number,
                    "origin": origin,
                    "units": UNITS_OF_ROW,
                    "settings": self.settings,
                }
                for configuration in configurations:
                    atoms = configuration.to_atoms()
                    self._connection.write(atoms, checksum=row_checksum(atoms, keys, {}), **keys)

    def pending(self) -> list[tuple[int, LabelState, Configuration]]:
        """Rows that wait for their labels: (id, state, configuration)."""
        return self._select(PENDING)

    def labelled(self) -> list[tuple[int, LabelState, Configuration]]:
        """Rows that have their labels: (id, state, configuration)."""
        return self._select(DONE)

    def label(self, row_id: int) -> Label:
        """The label of a row."""
        data = self._connection.get(id=row_id).data
        scalars = {name: float(np.asarray(data[name]).item()) for name in SCALARS if name in data}
        return Label(forces=data.get("forces"), **scalars)

    def finish(self, row_id: int, result: Label | str) -> None:
        """Store a label, or the message of a failure."""
        if isinstance(result, str):
            self._update(row_id, FAILED, {"failure": result})
            return
        # arrays of one number, as SchNetPack expects them
        data = {name: np.atleast_1d(value) for name, value in vars(result).items() if value is not None}
        if (entries := schnetpack_entries(data)) != {name: self._connection.metadata.get(name) for name in entries}:
            self.update_metadata(**entries)
        self._update(row_id, DONE, data)

    def failures(self) -> list[tuple[int, str]]:
        """(id, message) of the rows without a label."""
        return [(row.id, row.data["failure"]) for row in self._connection.select(state=FAILED, sort="id")]

    def retry_failed(self) -> None:
        """Let the failed rows wait again."""
        with self._connection:
            for row_id, _ in self.failures():
                self._update(row_id, PENDING, {})

    def _update(self, row_id: int, state: str, data: Mapping[str, Any]) -> None:
        """Set the state of a row, and add to its data."""
        row = self._connection.get(id=row_id)
        checksum = row_checksum(row.toatoms(), {**row.key_value_pairs, "state": state}, {**row.data, **data})
        self._connection.update(row_id, state=state, checksum=checksum, data=dict(data))

    def _select(self, state: str) -> list[tuple[int, LabelState, Configuration]]:
        found = []
        for row in self._connection.select(state=state, sort="id"):
            point = LabelState(int(row.natoms), float(row.rs), float(row.temperature_kelvin))
            found.append((int(row.id), point, Configuration.from_atoms(row.toatoms())))
        return found


def _make(path: str, entries: Mapping[str, Any]) -> None:
    """Make a database without rows, whole or not at all: sqlite alone leaves a broken one on a full disk."""
    from ase.db import connect

    fresh = Path(f"{path}.{os.getpid()}.new")
    try:
        _update_metadata(connect(str(fresh), type="db", use_lock_file=False), entries)
        rename(fresh, Path(path))
    finally:
        for file in (fresh, Path(f"{fresh}-journal")):
            file.unlink(missing_ok=True)


def _update_metadata(connection: Any, entries: Mapping[str, Any]) -> None:
    metadata = {**connection.metadata, **entries}
    connection.metadata = {**metadata, CHECKSUM: checksum(metadata)}


def _is_empty(path: str, key: str) -> bool:
    """Whether a database holds no configuration, as after a command that was refused."""
    with reading(path, key) as connection:
        return int(connection.count()) == 0
