"""Labelled sets from elsewhere: the same numbers as the database that they were written from, and named units."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from lightning_vfe.errors import SettingError
from lightning_vfe.labels.database import LabelDatabase
from lightning_vfe.models.potential.yukawa import YukawaPotential
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.units import BOHR_TO_ANGSTROM, HARTREE_TO_EV
from lightning_vfe.training.potential.datamodule import LabelDataModule
from lightning_vfe.training.potential.loss import PotentialLoss, predict
from tests.helpers.labels import write_database

STATES = [(2, 1.25), (2, 1.5)]


def source(tmp_path: Path, **choice: object) -> LabelDatabase:
    return LabelDatabase.open(write_database(tmp_path / "own.db", YukawaPotential(), STATES, count=5, **choice))


def write_xyz(database: LabelDatabase, path: Path) -> dict[str, str]:
    """In eV, angstrom and GPa; returns the units."""
    frames = []
    for num_atoms, rs in database.groups():
        arrays, length = database.arrays(num_atoms, rs), PeriodicCell(num_atoms, rs).length * BOHR_TO_ANGSTROM
        for row, positions in enumerate(arrays["positions"]):
            atoms = Atoms(f"H{num_atoms}", positions * BOHR_TO_ANGSTROM, cell=[length] * 3, pbc=True)
            numbers = {"energy": arrays["free_energy"][row] * HARTREE_TO_EV}
            if "forces" in arrays:
                numbers["forces"] = arrays["forces"][row] * HARTREE_TO_EV / BOHR_TO_ANGSTROM
                atoms.info["pressure"] = arrays["pressure_gpa"][row]
            if "energy_error" in arrays:
                atoms.info["energy_error"] = arrays["energy_error"][row] * HARTREE_TO_EV
            atoms.info["temperature_kelvin"] = 6000.0
            atoms.calc = SinglePointCalculator(atoms, **numbers)
            frames.append(atoms)
    write(path, frames, format="extxyz")
    return {"length": "Ang", "energy": "eV", "pressure": "GPa"}


def write_hdf5(database: LabelDatabase, path: Path) -> dict[str, str]:
    """A group for each cell, in atomic units and GPa; returns the units."""
    with h5py.File(path, "w") as file:
        for number, (num_atoms, rs) in enumerate(database.groups()):
            arrays, group = database.arrays(num_atoms, rs), file.create_group(f"cell{number}")
            group["length"], group["energy"] = PeriodicCell(num_atoms, rs).length, arrays["free_energy"]
            for name in ("positions", "forces", "energy_error", "temperature_kelvin"):
                if name in arrays:
                    group[name] = arrays[name]
            if "pressure_gpa" in arrays:
                group["pressure"] = arrays["pressure_gpa"]
    return {"length": "Bohr", "energy": "Ha", "pressure": "GPa"}


@pytest.mark.parametrize(("suffix", "export"), [("extxyz", write_xyz), ("h5", write_hdf5)])
@pytest.mark.parametrize("noise", [None, 0.01])
def test_the_numbers_are_those_of_the_database(
    suffix: str, export: Callable[..., dict[str, str]], noise: float | None, tmp_path: Path
) -> None:
    """Energies, forces, pressures and error bars, which become weights, agree to the digits of the file."""
    database = source(tmp_path, noise=noise, forces=noise is None)
    units = export(database, tmp_path / f"set.{suffix}")
    sets = []
    for data in (LabelDataModule(database.path), LabelDataModule(str(tmp_path / f"set.{suffix}"), units=units)):
        data.read()
        sets.append(sorted((group for part in data.sets.values() for group in part), key=lambda each: each.cell.rs))
        assert data.region == {"rs": [1.25, 1.5], "temperature_kelvin": [6000.0, 6000.0]}
    for name in ("energy", "forces", "pressure", "energy_error"):
        own, other = (
            np.concatenate([getattr(group, name).numpy().ravel() for group in each if getattr(group, name) is not None])
            if any(getattr(group, name) is not None for group in each)
            else np.zeros(0)
            for each in sets
        )
        assert own.shape == other.shape
        assert (len(own) > 0) == (name == "energy" or (name == "energy_error") == (noise is not None))
        assert np.allclose(np.sort(own), np.sort(other), atol=1e-7, rtol=1e-5)
    if noise is not None:
        weights = np.concatenate([group.weights.numpy() for group in sets[1]])
        errors = np.concatenate([group.energy_error.numpy() for group in sets[1]])
        assert weights[errors.argmin()] > 2 * weights[errors.argmax()]


def noisy_forces(tmp_path: Path, suffix: str, change: Callable[[np.ndarray], np.ndarray] = np.abs) -> LabelDataModule:
    """A set in eV and angstrom whose force components have errors 0.01 and 0.04 eV/angstrom in turn."""
    arrays, length = source(tmp_path).arrays(2, 1.25), PeriodicCell(2, 1.25).length * BOHR_TO_ANGSTROM
    positions, energy = arrays["positions"] * BOHR_TO_ANGSTROM, arrays["free_energy"] * HARTREE_TO_EV
    forces = arrays["forces"] * HARTREE_TO_EV / BOHR_TO_ANGSTROM
    errors = change(np.where(np.arange(forces.size) % 2 == 0, 0.01, 0.04).reshape(forces.shape))
    path = tmp_path / f"noisy.{suffix}"
    if suffix == "h5":
        with h5py.File(path, "w") as file:
            content = {"positions": positions, "length": length, "energy": energy, "forces": forces}
            for name, values in (content | {"forces_error": errors}).items():
                file[name] = values
    else:
        frames = [Atoms("H2", each, cell=[length] * 3, pbc=True) for each in positions]
        for frame, one, force, error in zip(frames, energy, forces, errors, strict=True):
            frame.calc = SinglePointCalculator(frame, energy=one, forces=force)
            frame.arrays["forces_error"] = error
        write(path, frames, format="extxyz")
    return LabelDataModule(str(path), batch_size=2, units={"length": "Ang", "energy": "eV"}, force_error_floor=1e-6)


@pytest.mark.parametrize("suffix", ["extxyz", "h5"])
def test_errors_of_forces_become_weights(suffix: str, tmp_path: Path) -> None:
    """In Ha/bohr; a component with four times the error has a sixteenth of the weight, and the mean is one."""
    data = noisy_forces(tmp_path, suffix)
    data.read()
    (part,) = data.sets["train"]
    assert part.forces_error is not None
    assert part.force_weights is not None
    unit = BOHR_TO_ANGSTROM / HARTREE_TO_EV
    assert sorted(set(np.round(part.forces_error.numpy().ravel() / unit, 6))) == [0.01, 0.04]
    weights = part.force_weights.numpy()
    assert weights.mean() == pytest.approx(1.0)
    assert weights.max() / weights.min() == pytest.approx(16.0, rel=1e-3)
    loss = PotentialLoss(energy_weight=1e-9)
    exact = YukawaPotential(screening_length=0.5)
    found = float(loss(predict(exact, part), part))
    difference = predict(exact, part).forces - part.forces
    assert found == pytest.approx(float((part.force_weights * difference.square()).mean()), rel=1e-3)


def test_errors_of_forces_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="configuration 0 has a negative forces_error"):
        noisy_forces(tmp_path, "h5", np.negative).read()
    with pytest.raises(SettingError, match="configuration 0 has forces_error of another shape"):
        noisy_forces(tmp_path, "h5", lambda errors: errors[..., 0]).read()
    with pytest.raises(SettingError, match=r"force_error_floor = 0\.0"):
        LabelDataModule("labels.h5", force_error_floor=0.0)
    with h5py.File(noisy_forces(tmp_path, "h5").path, "a") as file:
        del file["forces"]
    with pytest.raises(SettingError, match="has forces_error and no forces"):
        LabelDataModule(str(tmp_path / "noisy.h5"), units={"length": "Ang", "energy": "eV"}).read()


@pytest.mark.parametrize(
    ("units", "message"),
    [
        (None, r"units = null does not name the length of .*set.extxyz; give for example datamodule.units="),
        ({"length": "Ang"}, "does not name the energy"),
        ({"length": "Ang", "energy": "eV"}, "does not name the pressure"),
        ({"length": "ell", "energy": "eV"}, "units = ell is not in ase.units"),
    ],
)
def test_units_are_never_guessed(units: dict[str, str] | None, message: str, tmp_path: Path) -> None:
    write_xyz(source(tmp_path), tmp_path / "set.extxyz")
    with pytest.raises(SettingError, match=message):
        LabelDataModule(str(tmp_path / "set.extxyz"), units=units).read()


def test_own_databases_name_their_units(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="has no effect"):
        LabelDataModule(source(tmp_path).path, units={"length": "Ang", "energy": "eV"}).read()
