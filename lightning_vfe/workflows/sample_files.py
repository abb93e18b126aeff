"""What the files of samples hold: ASE's frames, walkers in HDF5, and a description."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from lightning_vfe.files import whole_file
from lightning_vfe.physics.units import BOHR_TO_ANGSTROM, HARTREE_TO_EV
from lightning_vfe.workflows.state_samples import StateSamples

UNITS = "positions and cell angstrom; energy eV; forces eV/angstrom; NAME_ha Hartree of the whole cell; lengths in "
UNITS += "log_prob bohr; rs bohr"
WALKER_UNITS = {
    "protons": "bohr",
    "log_prob": "ln p(x), lengths in bohr",
    "twists": "fractional: k = 2 pi twist / L",
    "twist_weights": "1",
    "electrons": "bohr, in any image; the first half has spin up",
    "log_psi": "ln psi",
    "local_energy": "Hartree, whole cell",
}


def ase_frames(samples: StateSamples) -> list[Atoms]:
    """The configurations as ASE has them, with E_psi in eV as energy and the rest in `info` and `arrays`."""
    num_atoms = samples.protons.shape[1]
    length = samples.point.cell(num_atoms).length * BOHR_TO_ANGSTROM
    to_ase = HARTREE_TO_EV / BOHR_TO_ANGSTROM
    frames = []
    for i, x in enumerate(samples.protons):
        atoms = Atoms(f"H{num_atoms}", x * BOHR_TO_ANGSTROM, cell=[length] * 3, pbc=True)
        atoms.info |= {
            "rs": samples.point.rs,
            "temperature_kelvin": samples.point.temperature_kelvin,
            "log_prob": float(samples.log_prob[i]),
            "energy_error": float(samples.energy_error[i]) * HARTREE_TO_EV,
            "log_weight": float(samples.weights.log_weight[i]),
            "units": UNITS,
        }
        values = {"e_psi_ha": samples.energy, "e_psi_error_ha": samples.energy_error, "e_ml_ha": samples.ml_energy}
        atoms.info |= {name: float(array[i]) for name, array in values.items() if array is not None}
        forces = {
            "hellmann_feynman_forces": samples.forces,
            "hellmann_feynman_force_errors": samples.force_errors,
            "ml_forces": samples.ml_forces,
        }
        for name, array in forces.items():
            if array is not None:
                atoms.set_array(name, array[i] * to_ase)
        atoms.calc = SinglePointCalculator(atoms, energy=float(samples.energy[i]) * HARTREE_TO_EV)
        frames.append(atoms)
    return frames


def description(samples: StateSamples) -> dict[str, Any]:
    """The entry of a state point in samples.json."""
    mean, error = samples.mean_energy_per_atom
    flow = samples.flow_gap
    gap = {"value": None, "error": None} if flow.gap is None else {"value": flow.gap.value, "error": flow.gap.error}
    return {
        "rs": samples.point.rs,
        "temperature_kelvin": samples.point.temperature_kelvin,
        "num_samples": len(samples.energy),
        "energy_per_atom": {"value": mean, "error": error},
        "flow_gap_per_atom": gap | {"unit": "Ha/atom", "note": flow.note()},
        "weights": {
            "effective_size": samples.weights.effective_size,
            "noise_variance_kT2": samples.weights.noise,
            "noise": "corrected for Gaussian noise; the noise divides effective_size by about exp(variance)",
        },
    }


def write_walkers(path: Path, states: Sequence[StateSamples]) -> None:
    """Write protons and electrons as HDF5, a group `state_0`, `state_1`, ... for each state point.

    A group has the attributes rs (bohr), temperature_kelvin and length (edge of the cube, bohr), and a dataset for
    each name in WALKER_UNITS with its unit in the attribute `unit`. Complex numbers are h5py's pairs of r and i.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    import h5py

    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for number, samples in enumerate(states):
            if samples.electrons is None:
                continue
            group, point = file.create_group(f"state_{number}"), samples.point
            group.attrs["rs"], group.attrs["temperature_kelvin"] = point.rs, point.temperature_kelvin
            group.attrs["length"] = point.cell(samples.protons.shape[1]).length
            values = {"protons": samples.protons, "log_prob": samples.log_prob, **vars(samples.electrons)}
            for name, array in values.items():
                group.create_dataset(name, data=array).attrs["unit"] = WALKER_UNITS[name]
    with whole_file(path, "wb") as stream:
        stream.write(content.getbuffer())
