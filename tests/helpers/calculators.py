"""Calculators for tests of labels; the processes that label import them from here."""

import os
import time
from typing import ClassVar

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.lj import LennardJones

SETTINGS = {"_target_": "ase.calculators.lj.LennardJones", "sigma": 0.5}


def lennard_jones():
    """Weak and of short range, in angstrom and eV."""
    return LennardJones(sigma=0.5, epsilon=0.1, rc=1.2)


class Awkward(LennardJones):
    """Leaves a file behind, fails on the right half of the cell, and dies in the last tenth (first atom's x)."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        with open("left_behind.txt", "w") as file:
            file.write(os.getcwd())
        place = atoms.get_scaled_positions()[0, 0]
        if place > 0.9:
            os._exit(7)
        if place > 0.5:
            raise RuntimeError("no\nconvergence")
        super().calculate(atoms, properties, system_changes)


class WrongForces(Calculator):
    """E = 500 sum x^2, F = E - 1; forces twice as large as they should be."""

    implemented_properties: ClassVar = ["energy", "free_energy", "forces"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        energy = 500.0 * float((atoms.positions**2).sum())
        self.results = {"energy": energy, "free_energy": energy - 1.0, "forces": -2000.0 * atoms.positions}


class Infinite(Calculator):
    """Gives numbers that are not finite."""

    implemented_properties: ClassVar = ["energy"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": np.inf}


class Slow(LennardJones):
    """Writes its process number into the folder of SLOW_PIDS, and takes its time."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        with open(os.path.join(os.environ["SLOW_PIDS"], str(os.getpid())), "w"):
            pass
        time.sleep(30)
