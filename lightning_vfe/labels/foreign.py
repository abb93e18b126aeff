"""Labelled sets from elsewhere: extended XYZ and HDF5. Their units are named by the user, never guessed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units

from lightning_vfe.errors import SettingError, one_line
from lightning_vfe.models.potential.schnetpack_model import unit_value
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.frames import Frame, frame_of, read_atoms
from lightning_vfe.physics.units import HARTREE_TO_EV

XYZ, HDF5 = (".xyz", ".extxyz"), (".h5", ".hdf5")
SUFFIXES = XYZ + HDF5
ENTRIES = ("energy", "forces", "pressure", "energy_error", "forces_error", "temperature_kelvin")
"""What a configuration may have beside its positions and its box; the energy it must have."""
_EXAMPLE = "give for example datamodule.units={length: Ang, energy: eV, pressure: GPa}"


class ForeignLabels:
    """A set of labels that another program made, with the methods of a `LabelDatabase`.

    Extended XYZ: one frame for each configuration, with `energy`, and where there are any `forces` (N, 3), `pressure`,
    `energy_error`, `forces_error` (N, 3) and `temperature_kelvin`. HDF5: at the root, or in each of several groups,
    `positions` (C, N, 3), the edge of the cube `length` () or (C,), and the same entries for all C configurations.

    Args:
        path: the file.
        given: units `length`, `energy` and, where there are pressures, `pressure`: names in ase.units, such as Ang,
            Bohr, eV, Ha, kcal/mol, GPa. Forces are energy per length. Errors have the units of their values.
            Temperatures are in K.
        key: the setting that named the file; that of the units is `units`.

    Raises:
        SettingError: a unit is missing or unknown, the file cannot be read, or a configuration lacks its energy, has
            numbers that are not finite, or is not hydrogen in a periodic cube.
    """

    def __init__(self, path: str, given: Mapping[str, str] | None, key: str = "database") -> None:
        self.path, self._key = path, key
        self._length = self._unit("length", given) / units.Bohr
        self._energy = self._unit("energy", given) / HARTREE_TO_EV
        self._given = given
        self._groups: dict[tuple[int, float], list[dict[str, Any]]] = {}
        for number, (frame, entries) in enumerate(self._configurations()):
            self._add(frame, entries, number)
        if not self._groups:
            raise SettingError(key, path, "holds no configuration", "give another file")
        self.metadata: dict[str, Any] = {"calculator": {"file": Path(path).name, "units": dict(given or {})}}

    def groups(self) -> list[tuple[int, float]]:
        """The (num_atoms, rs) that have labels, sorted."""
        return sorted(self._groups)

    def arrays(self, num_atoms: int, rs: float) -> dict[str, np.ndarray]:
        """Labels of one group in Ha, bohr and GPa, as `LabelDatabase.arrays`."""
        rows = self._groups[num_atoms, rs]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def _configurations(self) -> Iterator[tuple[Frame, dict[str, Any]]]:
        """Each configuration in bohr with its entries in the units of the file."""
        if Path(self.path).suffix.lower() in XYZ:
            for number, atoms in enumerate(read_atoms(self.path, self._key)):
                known = dict(atoms.info) | (dict(atoms.calc.results) if atoms.calc is not None else {})
                if "free_energy" in known:
                    known["energy"] = known["free_energy"]
                if "forces_error" in atoms.arrays:
                    known["forces_error"] = atoms.arrays["forces_error"]
                yield self._frame(atoms, number), {name: known[name] for name in ENTRIES if name in known}
            return
        number = 0
        for group in _hdf5_groups(self.path, self._key):
            lengths = np.broadcast_to(group["length"], len(group["positions"]))
            for row, (positions, length) in enumerate(zip(group["positions"], lengths, strict=True)):
                atoms = Atoms(f"H{len(positions)}", positions, cell=[length] * 3, pbc=True)
                yield self._frame(atoms, number), {name: group[name][row] for name in ENTRIES if name in group}
                number += 1

    def _frame(self, atoms: Atoms, number: int) -> Frame:
        """The protons in bohr."""
        atoms = atoms.copy()
        atoms.set_cell(np.asarray(atoms.cell) * self._length * units.Bohr, scale_atoms=True)
        return frame_of(atoms, self.path, self._key, number)

    def _add(self, frame: Frame, entries: Mapping[str, Any], number: int) -> None:
        where = f": configuration {number} "
        if "energy" not in entries:
            raise SettingError(self._key, self.path, f"{where}has no energy", "add it, or leave the configuration out")
        force = self._energy / self._length
        factors = {"energy": self._energy, "energy_error": self._energy, "forces": force, "forces_error": force}
        names = {"energy": "free_energy", "pressure": "pressure_gpa"}
        row: dict[str, Any] = {"positions": frame.positions, "id": np.array(sum(map(len, self._groups.values())))}
        for name, value in entries.items():
            factor = self._unit("pressure", self._given) / units.GPa if name == "pressure" else factors.get(name, 1.0)
            row[names.get(name, name)] = np.asarray(value, dtype=float) * factor
        if not all(bool(np.isfinite(value).all()) for value in row.values()):
            raise SettingError(self._key, self.path, f"{where}has numbers that are not finite", "leave it out")
        for name in ("forces", "forces_error"):
            if np.shape(row.get(name, frame.positions)) != frame.positions.shape:
                raise SettingError(self._key, self.path, f"{where}has {name} of another shape", "leave it out")
        if "forces_error" in row and "forces" not in row:
            raise SettingError(self._key, self.path, f"{where}has forces_error and no forces", "add them, or drop it")
        for name in ("energy_error", "forces_error"):
            if np.any(row.get(name, 0.0) < 0):
                raise SettingError(self._key, self.path, f"{where}has a negative {name}", "correct it")
        count = len(frame.positions)
        rs = float(f"{frame.length / PeriodicCell(count, 1.0).length:.6g}")
        rows = self._groups.setdefault((count, rs), [])
        if rows and rows[0].keys() != row.keys():
            missing = sorted(rows[0].keys() ^ row.keys())[0]
            raise SettingError(self._key, self.path, f"{where}differs from others in {missing}", "give all the same")
        rows.append(row)

    def _unit(self, name: str, given: Mapping[str, str] | None) -> float:
        """A unit in those of ASE."""
        if name not in (given or {}):
            raise SettingError("units", given, f"does not name the {name} of {self.path}", _EXAMPLE)
        assert given is not None
        return unit_value("units", given[name])


def _hdf5_groups(path: str, key: str) -> list[dict[str, np.ndarray]]:
    """The arrays of the root, or of each group."""
    import h5py

    try:
        with h5py.File(path) as file:
            homes = [file] if "positions" in file else [file[name] for name in sorted(file)]
            groups = [{name: np.asarray(home[name], dtype=float) for name in home} for home in homes]
    except (OSError, TypeError, ValueError) as error:
        raise SettingError(key, path, f"cannot be read as HDF5 ({one_line(error)})", "repair the file") from error
    for group in groups:
        missing = [name for name in ("positions", "length", "energy") if name not in group]
        if missing:
            raise SettingError(key, path, f"has no {' and no '.join(missing)}", "docs/potentials.md lists the names")
        count = len(group["positions"])
        for name in ENTRIES:
            if name in group and len(np.atleast_1d(group[name])) != count:
                raise SettingError(key, path, f"has {name} of another number than {count} positions", "repair the file")
    return groups
