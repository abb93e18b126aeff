"""Hydrogen in a periodic cube, from files that ASE reads: structures and the frames of trajectories."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read
from scipy.spatial import cKDTree

from lightning_vfe.errors import SettingError, one_line
from lightning_vfe.physics.units import BOHR_TO_ANGSTROM

LEAST_DISTANCE = 0.05
"""In bohr. Closer protons are one atom listed twice: at 0.05 bohr they repel with 20 Ha, 60 times kT at 100,000 K."""
TOLERANCE = 1e-3
"""Of a box, relative to its length: files print few digits."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Frame:
    """Protons in a periodic cube.

    Attributes:
        positions: in bohr.  # (N, 3)
        length: edge of the cube in bohr.
    """

    positions: np.ndarray
    length: float


def read_atoms(path: str | Path, key: str, index: int | str = ":") -> list[Atoms]:
    """ASE's objects of a file.

    Args:
        path: the file; an `@` in its name is a character like any other.
        key: the setting that named it, for the messages.
        index: of the frames, as in ase.io.read.

    Raises:
        SettingError: ASE cannot read it.
    """
    try:
        found: Any = read(str(path), index=index, do_not_split_by_at_sign=True)
    except Exception as error:  # ASE's readers raise whatever their parsers meet
        if isinstance(error, KeyError) and error.args in (("D",), ("T",)):
            reason = f"has atoms of the symbol {error.args[0]}, which ASE does not know"
            raise SettingError(key, path, reason, f"write H, and set system.nucleus={error.args[0]}") from error
        with Path(path).open("rb") as stream:
            if stream.read(3) == _BYTE_ORDER_MARK:
                reason = "begins with a byte order mark, which ASE cannot read"
                raise SettingError(key, path, reason, "save it as UTF-8 without the mark") from error
        reason = f"cannot be read by ASE ({type(error).__name__} {one_line(error)})"
        raise SettingError(key, path, reason, "repair the file, or try another format") from error
    return [found] if isinstance(found, Atoms) else list(found)


def frame_of(atoms: Atoms, path: str | Path, key: str, number: int | None = None) -> Frame:
    """The protons of ASE's object, in bohr.

    Args:
        atoms: in angstrom.
        path: its file, for the messages.
        key: the setting that named the file.
        number: of the frame; None for the only one.

    Raises:
        SettingError: other atoms than hydrogen, a box that is no cube along x, y and z, a direction that is not
            periodic, positions that are not finite, or two protons on one site.
    """
    where = "" if number is None else f": frame {number} "
    symbols = sorted(set(atoms.get_chemical_symbols()))
    if symbols != ["H"]:
        reason = f"{where}holds {len(atoms)} atoms of {'/'.join(symbols) or 'no element'}"
        raise SettingError(key, path, reason, "give hydrogen alone")
    box = np.asarray(atoms.cell) / BOHR_TO_ANGSTROM
    length = float(box[0, 0])
    if not box.any():
        reason = f"{where}has a box of zero size, since the file names none"
        raise SettingError(
            key, path, reason, 'add the box, such as Lattice="L 0 0 0 L 0 0 0 L" in an extended xyz file'
        )
    if not (length > 0 and np.abs(box - length * np.eye(3)).max() <= TOLERANCE * length):
        vectors = ", ".join(f"({', '.join(f'{value:.4g}' for value in row)})" for row in np.asarray(atoms.cell))
        reason = f"{where}has a box of the vectors {vectors} angstrom"
        raise SettingError(key, path, reason, "give a cube with its edges along x, y and z, all of one positive length")
    if not atoms.pbc.all():
        flags = " ".join("FT"[int(flag)] for flag in atoms.pbc)
        reason = f'{where}is not periodic in all directions (pbc="{flags}")'
        raise SettingError(key, path, reason, 'a cell of dense hydrogen is: write pbc="T T T" if that is meant')
    positions = atoms.get_positions() / BOHR_TO_ANGSTROM
    if not np.isfinite(positions).all():
        raise SettingError(key, path, f"{where}has positions that are not finite numbers", "repair the file")
    check_distances(positions, length, path, key, where)
    return Frame(positions, length)


def check_distances(positions: np.ndarray, length: float, path: str | Path, key: str, where: str = "") -> None:
    """Refuse two protons on one site, which no distribution of this package allows.

    Args:
        positions: in bohr.  # (N, 3)
        length: edge of the cube in bohr.
        path: their file, for the messages.
        key: the setting that named the file.
        where: part of the file, such as ": row 3 "; empty for all of it.

    Raises:
        SettingError: two are closer than LEAST_DISTANCE.
    """
    first, second, distance = closest_pair(positions, length)
    if distance < LEAST_DISTANCE:
        raise SettingError(
            key,
            path,
            f"{where}has atoms {first} and {second} (counted from 0) on one site: {distance:.2g} bohr apart, images "
            "across the boundary included",
            f"remove one of them; the least distance is {LEAST_DISTANCE} bohr",
        )


def closest_pair(positions: np.ndarray, length: float) -> tuple[int, int, float]:
    """Numbers and minimum-image distance in bohr of the two protons that are closest.

    Args:
        positions: in bohr, in any image.  # (N, 3)
        length: edge of the cube in bohr.

    Returns:
        The numbers, and their distance; infinity for a single proton.
    """
    if len(positions) < 2:
        return 0, 0, float("inf")
    wrapped = np.mod(positions, length)
    wrapped[wrapped >= length] = 0.0  # rounding lifts a tiny negative number onto the edge itself
    distances, neighbors = cKDTree(wrapped, boxsize=length).query(wrapped, k=2)
    # protons on one site may each be found before themselves
    own = np.arange(len(positions))
    other = np.where(neighbors[:, 0] == own, neighbors[:, 1], neighbors[:, 0])
    one = int(distances[:, 1].argmin())
    first, second = sorted((one, int(other[one])))
    return first, second, float(distances[one, 1])


def looks_like_bohr(length: float, wanted: float) -> bool:
    """Whether a box that was read as angstrom has the wanted length if its numbers are bohr."""
    return abs(length * BOHR_TO_ANGSTROM - wanted) <= TOLERANCE * wanted
