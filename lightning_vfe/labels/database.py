"""The database of labels: an ASE database (sqlite) with one row for each configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightning_vfe.errors import SettingError
from lightning_vfe.files import CHECKSUM, checksum, rename
from lightning_vfe.labels.checksum import check_metadata_checksum, check_row_checksum, row_checksum
from lightning_vfe.labels.connection import reading
from lightning_vfe.labels.label import Configuration, Label
from lightning_vfe.labels.schema import (
    FORMAT,
    MEANINGS,
    UNITS,
    UNITS_OF_ROW,
    check_metadata,
    check_numbers,
    check_row,
    schnetpack_entries,
    settings_name,
)
from lightning_vfe.physics.cell import PeriodicCell

SCALARS = ("free_energy", "energy", "pressure_gpa", "energy_error")
PENDING, DONE, FAILED = "pending", "done", "failed"


@dataclass(frozen=True)
class State:
    """A state point (N, rs in bohr, T in K of protons and electrons)."""

    num_atoms: int
    rs: float
    temperature_kelvin: float

    @property
    def cell(self) -> PeriodicCell:
        """Its periodic cell."""
        return PeriodicCell(self.num_atoms, self.rs)


class LabelDatabase:
    """Labels of a finished or growing database, for reading.

    Attributes:
        path: the file.
        metadata: units, calculator and settings, states, provenance.
    """

    def __init__(self, path: str, metadata: dict[str, Any], rows: Sequence[Any]) -> None:
        self.path = path
        self.metadata = metadata
        self._rows: dict[tuple[int, float], list[Any]] = {}
        for row in rows:
            self._rows.setdefault((int(row.natoms), float(row.rs)), []).append(row)

    @classmethod
    def open(cls, path: str | Path, key: str = "database") -> LabelDatabase:
        """Read a database, and check that its rows are whole and of one kind.

        Args:
            path: the file.
            key: the setting that named it, for the messages.

        Raises:
            ValueError: no such file, no database, no labels, missing metadata, other units, mixed units or mixed
                calculators, or a row that is damaged.
        """
        path, rows = str(path), []
        with reading(path, key) as connection:
            metadata = dict(connection.metadata)
            check_metadata(metadata, path, key)
            check_metadata_checksum(metadata, path, key)
            for row in connection.select(sort="id"):
                if (state := row.get("state", DONE)) == DONE:
                    check_row(row, metadata, path, key)
                    check_numbers(row, path, key)
                    rows.append(row)
                elif state not in (PENDING, FAILED):
                    raise SettingError(key, path, f"is damaged: row {row.id} has the state {state!r}", "take a copy")
                check_row_checksum(row, path, key)
        if not rows:
            raise SettingError(key, path, "holds no finished labels", "resume with lightning-vfe label")
        return cls(path, metadata, rows)

    def __len__(self) -> int:
        return sum(len(rows) for rows in self._rows.values())

    def groups(self) -> list[tuple[int, float]]:
        """The (num_atoms, rs) that have labels, sorted."""
        return sorted(self._rows)

    def arrays(self, num_atoms: int, rs: float) -> dict[str, np.ndarray]:
        """Labels of one group in Ha and bohr, in the order of their ids; C configurations.

        Returns:
            positions (C, N, 3); free_energy (C,), E - TS, the target; energy (C,), E; where the calculator has them
            forces (C, N, 3), pressure_gpa (C,) and energy_error (C,); temperature_kelvin (C,), round (C,) of sampling
            and id (C,) of the row.

        Raises:
            ValueError: no labels of that group, or some rows have an entry that others lack.
        """
        rows = self._rows.get((num_atoms, rs))
        if rows is None:
            raise ValueError(f"{self.path} has no labels of num_atoms = {num_atoms}, rs = {rs}; it has {self.groups()}")
        arrays = {
            "positions": np.stack([Configuration.from_atoms(row.toatoms()).positions for row in rows]),
            "temperature_kelvin": np.array([float(row.temperature_kelvin) for row in rows]),
            "round": np.array([int(row.round) for row in rows]),
            "id": np.array([int(row.id) for row in rows]),
        }
        for name in ("free_energy", "energy", "forces", "pressure_gpa", "energy_error"):
            having = [row for row in rows if name in row.data]
            if having and len(having) < len(rows):
                raise ValueError(f"{self.path} has {name} in some rows only, not in row {_first_without(name, rows)}")
            if having:
                stacked = np.stack([np.asarray(row.data[name], dtype=float) for row in rows])
                arrays[name] = stacked if name == "forces" else stacked.reshape(len(rows))
        return arrays


class LabelStore:
    """The same database for writing: configurations enter it before they are labelled, so that nothing is lost."""

    def __init__(self, path: str | Path, states: Sequence[State], calculator: Mapping[str, Any]) -> None:
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

    def add_pending(self, batches: Sequence[tuple[State, Sequence[Configuration]]], number: int, origin: str) -> None:
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

    def pending(self) -> list[tuple[int, State, Configuration]]:
        """Rows that wait for their labels: (id, state, configuration)."""
        return self._select(PENDING)

    def labelled(self) -> list[tuple[int, State, Configuration]]:
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

    def _select(self, state: str) -> list[tuple[int, State, Configuration]]:
        found = []
        for row in self._connection.select(state=state, sort="id"):
            point = State(int(row.natoms), float(row.rs), float(row.temperature_kelvin))
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


def _first_without(name: str, rows: Sequence[Any]) -> int:
    return next(int(row.id) for row in rows if name not in row.data)
