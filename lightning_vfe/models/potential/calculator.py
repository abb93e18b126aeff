"""A potential as a calculator of ASE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from torch import Tensor
from typing_extensions import override

from lightning_vfe.errors import SettingError
from lightning_vfe.models.potential.potential import Potential
from lightning_vfe.models.potential.storage import load_potential
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.units import BOHR_TO_ANGSTROM, HARTREE_TO_EV

CUBE = 1e-6
"""Relative deviation from a cube that is taken for rounding."""


class PotentialCalculator(Calculator):
    """E(z), forces and stress of a potential in ASE's units: eV, eV/angstrom, eV/angstrom^3.

    Forces are derivatives by autograd. The stress is -dE/dV at fixed scaled coordinates, without the momenta of the
    protons. It is the same in all three directions: use it for changes of the volume only.

    Args:
        potential: a potential, or the file of one.
        settings: of ASE's Calculator.

    Raises:
        SettingError: the file is missing or damaged.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012  as ASE has it

    def __init__(self, potential: Potential | str | Path, **settings: Any) -> None:
        super().__init__(**settings)  # type: ignore[no-untyped-call]  # of ASE
        self.potential = potential if isinstance(potential, Potential) else load_potential(potential)[0]

    @override
    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Fill `results`.

        Raises:
            SettingError: the atoms are not hydrogen in a periodic cube, or of a density that the potential refuses.
        """
        super().calculate(atoms, list(properties), list(system_changes))  # type: ignore[no-untyped-call]  # of ASE
        assert self.atoms is not None
        cell, z = hydrogen_in_cube(self.atoms)
        energy, forces = self.potential.energy_and_forces(z[None], cell)
        self.results["energy"] = self.results["free_energy"] = float(energy) * HARTREE_TO_EV
        self.results["forces"] = forces[0].double().numpy() * (HARTREE_TO_EV / BOHR_TO_ANGSTROM)
        if "stress" in properties:
            pressure = float(self.potential.pressure(z[None], cell)) * HARTREE_TO_EV / BOHR_TO_ANGSTROM**3
            self.results["stress"] = np.array([-pressure] * 3 + [0.0] * 3)


def hydrogen_in_cube(atoms: Atoms) -> tuple[PeriodicCell, Tensor]:
    """The cell and the positions in bohr (N, 3) of ASE's atoms.

    Raises:
        SettingError: other elements than hydrogen, or a box that is no periodic cube.
    """
    if set(atoms.get_atomic_numbers()) != {1}:
        raise SettingError("atoms", atoms.get_chemical_formula(), "must be hydrogen")
    box = np.asarray(atoms.cell)
    length = box[0, 0]
    if not atoms.pbc.all() or length <= 0 or np.abs(box - length * np.eye(3)).max() > CUBE * length:
        raise SettingError("atoms.cell", box.tolist(), "must be a periodic cube", "give cell=[L, L, L], pbc=True")
    number = len(atoms)
    rs = (3.0 / (4.0 * np.pi * number)) ** (1.0 / 3.0) * length / BOHR_TO_ANGSTROM
    return PeriodicCell(number, float(rs)), torch.tensor(atoms.positions / BOHR_TO_ANGSTROM).to(
        torch.get_default_dtype()
    )
