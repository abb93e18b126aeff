"""A configuration of protons, and what a calculator says about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from lightning_vfe.physics.units import BOHR_TO_ANGSTROM, HARTREE_PER_BOHR3_TO_GPA, HARTREE_TO_EV


@dataclass(frozen=True)
class Configuration:
    """Protons in a periodic cube.

    Attributes:
        positions: in bohr.  # (N, 3)
        length: edge of the cube in bohr.
    """

    positions: np.ndarray
    length: float

    def to_atoms(self) -> Atoms:
        """ASE's object, in angstrom."""
        box = self.length * BOHR_TO_ANGSTROM
        positions = self.positions * BOHR_TO_ANGSTROM
        return Atoms(f"H{len(positions)}", positions=positions, cell=[box, box, box], pbc=True)

    @staticmethod
    def from_atoms(atoms: Atoms) -> Configuration:
        """From ASE's object, in angstrom."""
        return Configuration(
            atoms.get_positions() / BOHR_TO_ANGSTROM, float(atoms.cell.lengths()[0]) / BOHR_TO_ANGSTROM
        )


@dataclass(frozen=True)
class Label:
    """What a calculator says about a configuration, whole cell, in Ha and bohr.

    Attributes:
        free_energy: the energy whose negative gradient the forces are: E - TS of the electrons with smearing. The
            target of a fit.
        energy: internal energy E.
        forces: -d free_energy / d positions; None where the calculator has none.  # (N, 3)
        pressure_gpa: the calculator's -dF/dV in GPa, without the protons' kT N/V; None where it has no stress.
        energy_error: standard error of both energies; None for a calculator without noise.
    """

    free_energy: float
    energy: float
    forces: np.ndarray | None = None
    pressure_gpa: float | None = None
    energy_error: float | None = None


class LabellingFailed(RuntimeError):
    """No configuration could be labelled, or no potential of a committee could be fitted."""


Labeller = Callable[[Sequence[Configuration]], Iterator[tuple[int, "Label | str"]]]
"""Labels configurations in any order: yields (index, its label, or one line that says why there is none)."""


def by_length(labellers: Mapping[float, Labeller]) -> Labeller:
    """One labeller of several that label one box length each: every configuration goes to that of the nearest length.

    Args:
        labellers: by the length in bohr.
    """
    lengths = np.array(list(labellers))

    def label(configurations: Sequence[Configuration]) -> Iterator[tuple[int, Label | str]]:
        nearest = [int(np.abs(lengths - configuration.length).argmin()) for configuration in configurations]
        for number, labeller in enumerate(labellers.values()):
            indices = [index for index, which in enumerate(nearest) if which == number]
            for position, result in labeller([configurations[index] for index in indices]):
                yield indices[position], result

    return label


def ase_label(calculator: Any, configuration: Configuration) -> Label:
    """Energies, and forces and pressure where it has them, of an ASE calculator.

    ASE's `free_energy` is the force-consistent energy; a calculator that does not report it has forces that follow its
    `energy`. Its `energy` is taken as it is: E for the calculators of this package, while others report what they
    extrapolate to zero smearing.

    Raises:
        Exception: whatever the calculator raises.
        RuntimeError: it gives numbers that are not finite.
    """
    atoms = configuration.to_atoms()
    offered = set(calculator.implemented_properties)
    wanted = [name for name in ("energy", "forces", "stress") if name in offered]
    calculator.calculate(atoms, wanted, ["positions", "numbers", "cell", "pbc"])
    results = calculator.results
    energy = float(results["energy"]) / HARTREE_TO_EV
    free_energy = float(results.get("free_energy", results["energy"])) / HARTREE_TO_EV
    forces = pressure = None
    if "forces" in results:
        forces = np.asarray(results["forces"], dtype=float) * (BOHR_TO_ANGSTROM / HARTREE_TO_EV)
    if "stress" in results:
        # ASE's stress is +dE/d(strain)/V: a compressed cell has a negative one
        stress = np.asarray(results["stress"], dtype=float)
        diagonal = stress[:3] if stress.shape == (6,) else np.diag(stress)
        pressure = -float(diagonal.mean()) * BOHR_TO_ANGSTROM**3 / HARTREE_TO_EV * HARTREE_PER_BOHR3_TO_GPA
    label = Label(free_energy, energy, forces, pressure)
    values = [free_energy, energy, *([] if forces is None else forces.ravel())]
    if not np.isfinite(values).all():
        raise RuntimeError("the calculator gives energies or forces that are not finite")
    return label
