"""Starting positions of the protons: lattices, a molecular fluid, a random fluid, or a user's file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from ase.build import bulk
from torch import Tensor

from lightning_vfe.errors import SettingError
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.frames import TOLERANCE, frame_of, looks_like_bohr, read_atoms
from lightning_vfe.physics.units import BOHR_TO_ANGSTROM

BOND_LENGTH = 1.4
"""Distance of the protons of a hydrogen molecule in bohr."""

_ATOMS_PER_CUBE = {"sc": 1, "bcc": 2, "fcc": 4}
_NAMES = (*_ATOMS_PER_CUBE, "molecular", "random", "mixed")
_MAX_ROUNDS = 10_000

MIXED = "mixed"
"""Half of the walkers start as molecules, the others as atoms."""
STARTS = ("molecular", "random")
"""Structures of these halves."""


def starts_of(structure: str) -> tuple[str, ...]:
    """The structures that walkers start from in turn: two for "mixed", else one."""
    return STARTS if structure == MIXED else (structure,)


def make_structure(name_or_path: str, cell: PeriodicCell, num_walkers: int, generator: torch.Generator) -> Tensor:
    """Proton positions for every walker.

    - "sc", "bcc", "fcc": the perfect lattice, the same for all walkers.
    - "random": uniform positions, no two closer than rs.
    - "molecular": N / 2 molecules with bonds of 1.4 bohr, uniform centres and orientations; protons of different
      molecules are not closer than rs.
    - anything else: a file that ASE reads (its last frame), with N hydrogen atoms in a cubic box of this cell's length
      to 1e-3, no two on one site; the same for all walkers.

    Args:
        name_or_path: see above.
        cell: the periodic cell.
        num_walkers: W, positive.
        generator: random numbers; its device is that of the result.

    Returns:
        Positions in [0, L) in bohr, in torch's default type.  # (W, N, 3)

    Raises:
        ValueError: the name is unknown, N does not fit, or the file does not match the cell.
    """
    if num_walkers < 1:
        raise SettingError("num_walkers", num_walkers, "must be positive")
    if name_or_path == "random":
        positions = _scatter(cell, num_walkers, atoms_per_unit=1, generator=generator)
    elif name_or_path == "molecular":
        if cell.num_atoms % 2:
            reason = f"needs an even system.num_atoms, not {cell.num_atoms}"
            raise SettingError("structure", name_or_path, reason, "use random instead")
        positions = _scatter(cell, num_walkers, atoms_per_unit=2, generator=generator)
    else:
        one = _lattice(name_or_path, cell) if name_or_path in _ATOMS_PER_CUBE else _from_file(name_or_path, cell)
        positions = torch.tensor(one, device=generator.device).expand(num_walkers, -1, -1)
    return cell.wrap(positions.to(torch.get_default_dtype())).contiguous()


def _lattice(name: str, cell: PeriodicCell) -> np.ndarray:
    """Perfect lattice of N atoms that fills the cell, in bohr.  # (N, 3)"""
    per_cube = _ATOMS_PER_CUBE[name]
    repeats = round((cell.num_atoms / per_cube) ** (1.0 / 3.0))
    if per_cube * repeats**3 != cell.num_atoms:
        fits = ", ".join(str(per_cube * m**3) for m in range(1, 6))
        raise SettingError("structure", name, f"needs system.num_atoms among {fits}, ... not {cell.num_atoms}")
    positions: np.ndarray = bulk("H", name, a=cell.length / repeats, cubic=True).repeat(repeats).get_positions()
    return positions


def _from_file(path: str, cell: PeriodicCell) -> np.ndarray:
    """Positions of the last frame of a file, in bohr, after a check against the cell.  # (N, 3)"""
    if not Path(path).is_file():
        raise SettingError("structure", path, f"is neither a file nor one of {', '.join(_NAMES)}")
    (atoms,) = read_atoms(path, "structure", index=-1)
    symbols = sorted(set(atoms.get_chemical_symbols()))
    if symbols != ["H"] or len(atoms) != cell.num_atoms:
        found = f"holds {len(atoms)} atoms of {'/'.join(symbols)}"
        raise SettingError("structure", path, found, f"system.num_atoms = {cell.num_atoms} needs as many of H")
    frame = frame_of(atoms, path, "structure")
    if abs(frame.length - cell.length) > TOLERANCE * cell.length:
        remedy = "set system.rs to match or scale the file's box and positions"
        if looks_like_bohr(frame.length, cell.length):
            remedy = "the numbers fit if they are bohr: convert box and positions to angstrom"
        given, wanted = (length * BOHR_TO_ANGSTROM for length in (frame.length, cell.length))
        reason = f"has a box of {given:.5f} angstrom, but system.num_atoms and system.rs need one of {wanted:.5f}"
        raise SettingError("structure", path, reason, remedy)
    return frame.positions


def _scatter(cell: PeriodicCell, num_walkers: int, atoms_per_unit: int, generator: torch.Generator) -> Tensor:
    """Atoms or molecules at random, protons of different ones at least rs apart.  # (W, N, 3) float64

    Random sequential addition for all walkers at once: in each round every unit that is too close to one before it in
    the list is drawn again, until none is. Spheres of diameter rs fill an eighth of the cell, far from jamming (0.38).
    """
    num_units = cell.num_atoms // atoms_per_unit
    positions = _draw_units(cell, num_walkers * num_units, atoms_per_unit, generator)
    positions = positions.reshape(num_walkers, num_units, atoms_per_unit, 3)
    walkers = torch.arange(num_walkers, device=generator.device)
    for _ in range(_MAX_ROUNDS):
        clashes = _clashes(cell, positions[walkers])  # (W', U)
        unfinished = clashes.any(dim=-1)
        if not unfinished.any():
            return positions.reshape(num_walkers, cell.num_atoms, 3)
        walkers, clashes = walkers[unfinished], clashes[unfinished]
        walker, unit = clashes.nonzero(as_tuple=True)
        positions[walkers[walker], unit] = _draw_units(cell, len(unit), atoms_per_unit, generator)
    name = "random" if atoms_per_unit == 1 else "molecular"
    raise SettingError("structure", name, f"does not fit system.rs = {cell.rs}", "use a lattice or a larger rs")


def _draw_units(cell: PeriodicCell, count: int, atoms_per_unit: int, generator: torch.Generator) -> Tensor:
    """Uniform atoms, or molecules with uniform centres and orientations, in bohr.  # (count, atoms_per_unit, 3)"""
    device = generator.device
    centres = cell.length * torch.rand(count, 1, 3, generator=generator, device=device, dtype=torch.float64)
    if atoms_per_unit == 1:
        return centres
    axis = torch.randn(count, 1, 3, generator=generator, device=device, dtype=torch.float64)
    ends = torch.tensor([[-0.5], [0.5]], device=device, dtype=torch.float64) * BOND_LENGTH
    positions: Tensor = centres + ends * axis / axis.norm(dim=-1, keepdim=True)
    return positions


def _clashes(cell: PeriodicCell, positions: Tensor) -> Tensor:
    """Units closer than rs to one before them, or molecules closer to their own image.  # (W, U, A, 3) -> (W, U)"""
    num_walkers, num_units, atoms_per_unit, _ = positions.shape
    atoms = positions.flatten(1, 2)
    distances = cell.minimum_image(atoms.unsqueeze(2) - atoms.unsqueeze(1)).norm(dim=-1)  # (W, N, N)
    blocks = (distances < cell.rs).reshape(num_walkers, num_units, atoms_per_unit, num_units, atoms_per_unit)
    clashes: Tensor = blocks.any(dim=4).any(dim=2).tril(diagonal=-1).any(dim=-1)
    if atoms_per_unit == 2:
        # In a small cell a bond longer than L/2 may leave its protons closer to each other across the boundary.
        bond = cell.minimum_image(positions[:, :, 1] - positions[:, :, 0]).norm(dim=-1)
        clashes = clashes | (bond < BOND_LENGTH * (1.0 - 1e-9))
    return clashes
