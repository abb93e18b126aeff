"""Units and meanings of what an ASE calculator gives."""

import numpy as np
import pytest

from lightning_vfe.labels.label import Configuration, ase_label
from lightning_vfe.physics.units import BOHR_TO_ANGSTROM, HARTREE_PER_BOHR3_TO_GPA, HARTREE_TO_EV
from tests.helpers.calculators import Infinite, WrongForces, lennard_jones


def configuration(seed: int = 0, length: float = 5.0) -> Configuration:
    return Configuration(np.random.default_rng(seed).uniform(0, length, (4, 3)), length)


def test_units_by_finite_differences() -> None:
    place = configuration(1)
    label = ase_label(lennard_jones(), place)
    assert label.forces is not None
    assert label.pressure_gpa is not None
    assert label.energy_error is None
    atoms = place.to_atoms()
    atoms.calc = lennard_jones()
    assert label.free_energy == label.energy == pytest.approx(atoms.get_potential_energy() / HARTREE_TO_EV, rel=1e-12)
    step = 1e-4
    moved = [place.positions + sign * step * np.eye(12)[4].reshape(4, 3) for sign in (1, -1)]
    plus, minus = (
        ase_label(lennard_jones(), Configuration(positions, place.length)).free_energy for positions in moved
    )
    assert label.forces[1, 1] == pytest.approx(-(plus - minus) / (2 * step), rel=1e-5)
    scaled = [Configuration(place.positions * s, place.length * s) for s in (1 + step, 1 - step)]
    plus, minus = (ase_label(lennard_jones(), one).free_energy for one in scaled)
    change = scaled[0].length ** 3 - scaled[1].length ** 3
    assert label.pressure_gpa == pytest.approx(-(plus - minus) / change * HARTREE_PER_BOHR3_TO_GPA, rel=1e-5)


def test_free_energy_and_energy_are_kept_apart() -> None:
    place = configuration()
    label = ase_label(WrongForces(), place)
    positions = place.positions * BOHR_TO_ANGSTROM
    assert label.energy * HARTREE_TO_EV == pytest.approx(500.0 * (positions**2).sum())
    assert (label.energy - label.free_energy) * HARTREE_TO_EV == pytest.approx(1.0, rel=1e-9)
    assert label.pressure_gpa is None


def test_ase_objects_and_back() -> None:
    place = configuration(2)
    back = Configuration.from_atoms(place.to_atoms())
    np.testing.assert_allclose(back.positions, place.positions, rtol=1e-14)
    assert back.length == pytest.approx(place.length, rel=1e-14)


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(RuntimeError, match="not finite"):
        ase_label(Infinite(), configuration())
