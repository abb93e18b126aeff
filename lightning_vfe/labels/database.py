"""Read the database of labels: an ASE database (sqlite) with one row for each configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightning_vfe.errors import SettingError
from lightning_vfe.labels.checksum import check_metadata_checksum, check_row_checksum
from lightning_vfe.labels.connection import reading
from lightning_vfe.labels.label import Configuration
from lightning_vfe.labels.schema import check_metadata, check_numbers, check_row
from lightning_vfe.physics.cell import PeriodicCell

PENDING, DONE, FAILED = "pending", "done", "failed"


@dataclass(frozen=True)
class LabelState:
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


def _first_without(name: str, rows: Sequence[Any]) -> int:
    return next(int(row.id) for row in rows if name not in row.data)
