"""What stands in a database of labels: its units, its metadata, and the checks of both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from lightning_vfe.errors import SettingError
from lightning_vfe.labels.label import Configuration
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.frames import check_distances

FORMAT = "lightning-vfe labels 1"
UNITS = {
    "positions": "Ang",
    "free_energy": "Hartree",
    "energy": "Hartree",
    "energy_error": "Hartree",
    "forces": "Hartree/Bohr",
    "pressure_gpa": "GPa",
}
"""Units of a row: the positions are ASE's own, the rest is in row.data. The names are those of SchNetPack."""
UNITS_OF_ROW = "Ang, Hartree, Hartree/Bohr"
"""Repeated in every row, so that rows copied from another database are recognized."""
MEANINGS = {
    "free_energy": "E - TS of the electrons, whole cell; forces are its negative gradient; the target of a fit",
    "energy": "what the calculator calls energy, whole cell; E (without -TS) for those of lightning-vfe",
    "energy_error": "standard error of free_energy and energy where the calculator has noise",
    "pressure_gpa": "-dF/dV of free_energy, without the protons' kT N/V",
}
NEEDED = ("format", "units", "calculator", "settings", "states", "code_version", "command")
# where programs stand says nothing about the numbers
LOCAL_SETTINGS = ("command", "pseudo_dir", "num_threads", "ckpt_path", "device", "batch_size")


def schnetpack_entries(data: Collection[str]) -> dict[str, Any]:
    """The metadata by which SchNetPack's ASEAtomsData reads the same file, once every row has its label.

    Args:
        data: names of a row's entries.
    """
    properties = {name: UNITS[name] for name in ("free_energy", "energy", "forces") if name in data}
    return {"_distance_unit": UNITS["positions"], "_property_unit_dict": properties, "atomrefs": {}}


def settings_name(calculator: Mapping[str, Any]) -> str:
    """Name of a calculator with its settings: the last part of its target, and a digest of all that matters."""
    kept = {key: value for key, value in calculator.items() if key not in LOCAL_SETTINGS}
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:12]
    return f"{str(calculator['_target_']).rpartition('.')[2]}-{digest}"


def check_metadata(metadata: Mapping[str, Any], path: str, key: str) -> None:
    """Refuse a database whose metadata is incomplete or names other units than those it must have.

    Raises:
        ValueError: one line that begins with `key`.
    """
    missing = [name for name in NEEDED if name not in metadata]
    if missing:
        raise SettingError(
            key,
            path,
            f"lacks the metadata {', '.join(missing)}",
            "give a database made by lightning-vfe label, whose metadata must be copied along with its rows",
        )
    if metadata["format"] != FORMAT:
        raise SettingError(
            key, path, f"has the format {metadata['format']!r}, not {FORMAT!r}", "label the configurations again"
        )
    units = metadata["units"]
    units = units if isinstance(units, Mapping) else {}
    for name, unit in UNITS.items():
        if units.get(name) != unit:
            raise SettingError(
                key,
                path,
                f"has {name} in {units.get(name, 'no unit')}, which must be in {unit}",
                "convert the data and its metadata, or make it with lightning-vfe label",
            )


def check_row(row: Any, metadata: Mapping[str, Any], path: str, key: str) -> None:
    """Refuse a row that comes from another calculator or has other units than its database says.

    Raises:
        ValueError: one line that begins with `key`.
    """
    units, settings = row.get("units"), row.get("settings")
    if units != UNITS_OF_ROW:
        found = f"units {units!r}" if units else "no units"
        raise SettingError(
            key,
            path,
            f"mixes units: row {row.id} has {found}, the database has {UNITS_OF_ROW!r}",
            "keep one kind of rows in each database",
        )
    if settings != metadata["settings"]:
        raise SettingError(
            key,
            path,
            f"mixes calculators: row {row.id} is of {settings!r}, the database of {metadata['settings']!r}",
            "keep the labels of one calculator with one choice of settings in each database",
        )


def check_numbers(row: Any, path: str, key: str) -> None:
    """Refuse a finished row that no calculation can have left.

    It lacks an energy, has numbers that are not finite, another box than its rs says, or two protons on one site.

    Raises:
        ValueError: one line that begins with `key`.
    """
    energy = row.data.get("free_energy")
    if energy is None or not _finite([energy, row.data.get("forces", 0.0)]):
        raise SettingError(key, path, f": row {row.id} has no finite free_energy and forces", "remove it")
    if np.shape(row.data.get("forces", row.positions)) != row.positions.shape:
        raise SettingError(key, path, f": row {row.id} has forces of another number of atoms", "remove it")
    if not _finite([row.data.get(name, 0.0) for name in ("energy", "pressure_gpa", "energy_error")]):
        raise SettingError(key, path, f": row {row.id} has numbers that are not finite", "remove it")
    configuration = Configuration.from_atoms(row.toatoms())
    if not _finite([configuration.positions]):
        raise SettingError(key, path, f": row {row.id} has positions that are not finite numbers", "remove it")
    length = configuration.length
    wanted = PeriodicCell(int(row.natoms), float(row.rs)).length
    if not abs(length - wanted) <= 1e-6 * wanted:
        raise SettingError(
            key,
            path,
            f": row {row.id} has a box of {length:.6f} bohr, but {row.natoms} atoms at rs = {row.rs} need {wanted:.6f}",
            f"its positions are in other units than {UNITS['positions']}, or its rs is wrong",
        )
    check_distances(configuration.positions, length, path, key, f": row {row.id} ")


def _finite(arrays: Sequence[Any]) -> bool:
    return all(bool(np.isfinite(array).all()) for array in arrays)
