"""A potential in ASE: units, forces and stress by differences, and what is refused."""

import numpy as np
import pytest
from ase import Atoms
from ase.optimize import BFGS

import lightning_vfe as lv
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.units import BOHR_TO_ANGSTROM, HARTREE_TO_EV
from tests.helpers.potentials import make_schnet, random_protons


def build_atoms(rs: float = 1.25) -> tuple[Atoms, PeriodicCell]:
    cell = PeriodicCell(8, rs)
    length = cell.length * BOHR_TO_ANGSTROM
    positions = random_protons(cell, 1)[0].numpy() * BOHR_TO_ANGSTROM
    return Atoms("H8", positions, cell=[length] * 3, pbc=True), cell


def test_energy_forces_and_stress_in_the_units_of_ase() -> None:
    potential, (atoms, cell) = make_schnet(), build_atoms()
    atoms.calc = lv.PotentialCalculator(potential)
    energy = float(potential.energy(random_protons(cell, 1), cell)) * HARTREE_TO_EV
    assert atoms.get_potential_energy() == pytest.approx(energy, rel=1e-12)
    step, forces = 1e-4, atoms.get_forces()
    energies = []
    for sign in (1.0, -1.0):
        moved = atoms.copy()
        moved.positions[3, 1] += sign * step
        moved.calc = atoms.calc
        energies.append(moved.get_potential_energy())
    assert forces[3, 1] == pytest.approx(-(energies[0] - energies[1]) / (2.0 * step), abs=1e-6)
    energies, volumes = [], []
    for sign in (1.0, -1.0):
        scaled = atoms.copy()
        scaled.set_cell(atoms.cell * (1.0 + sign * step), scale_atoms=True)
        scaled.calc = atoms.calc
        energies.append(scaled.get_potential_energy())
        volumes.append(scaled.get_volume())
    pressure = -(energies[0] - energies[1]) / (volumes[0] - volumes[1])
    assert atoms.get_stress()[:3] == pytest.approx(-pressure * np.ones(3), rel=1e-5)


def test_ase_relaxes_protons_in_it() -> None:
    atoms, _ = build_atoms()
    atoms.calc = lv.PotentialCalculator(lv.YukawaPotential(1.0, 0.7, 4.0))
    before = atoms.get_potential_energy()
    BFGS(atoms, logfile=None).run(fmax=0.5, steps=10)
    assert atoms.get_potential_energy() < before


def test_other_atoms_and_boxes_are_refused() -> None:
    atoms, _ = build_atoms()
    helium = Atoms("He8", atoms.positions, cell=atoms.cell, pbc=True)
    slab = Atoms("H8", atoms.positions, cell=atoms.cell, pbc=[True, True, False])
    for wrong, part in ((helium, "must be hydrogen"), (slab, "must be a periodic cube")):
        wrong.calc = lv.PotentialCalculator(lv.YukawaPotential())
        with pytest.raises(lv.SettingError, match=part):
            wrong.get_potential_energy()
