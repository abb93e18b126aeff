"""Samples of p(x) with energies and weights: a table, ASE's frames, and files."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write as write_atoms

from lightning_vfe.files import whole_file, write_json
from lightning_vfe.physics.reweighting import BoltzmannWeights
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.units import BOHR_TO_ANGSTROM, HARTREE_TO_EV
from lightning_vfe.workflows.electron_samples import ElectronSamples, write_walkers

UNITS = "positions and cell angstrom; energy eV; forces eV/angstrom; NAME_ha Hartree of the whole cell; lengths in "
UNITS += "log_prob bohr; rs bohr"
MAX_NOISE = 0.25
"""In (kT)^2: above it, the noise of E_psi takes more than a fifth of the weights' effective samples."""
FORCES_NOTE = (
    "hellmann_feynman_forces are -<d(V_pp + V_pe)/dx> in |psi|^2: derivatives of E_psi only where psi is at its minimum"
)


@dataclass(frozen=True)
class StateSamples:
    """Samples of one state point, in Hartree atomic units of the whole cell.

    Attributes:
        point: density and temperature.
        protons: x, inside the cell.  # (n, N, 3)
        log_prob: ln p(x), normalised over ordered protons.  # (n,)
        energy: E_psi(x), averaged over the twists.  # (n,)
        energy_error: its standard error.  # (n,)
        ml_energy: E_ML(x) of the base's potential at the same protons; None for the uniform base.  # (n,)
        weights: for averages over exp(-E_psi/kT), see `boltzmann_weights`.
        forces: Hellmann-Feynman forces, see `hellmann_feynman_forces`; None if not asked for.  # (n, N, 3)
        force_errors: their standard errors.
        ml_forces: -dE_ML/dx at the same protons.
        electrons: their electrons; None if not asked for.
    """

    point: StatePoint
    protons: np.ndarray
    log_prob: np.ndarray
    energy: np.ndarray
    energy_error: np.ndarray
    ml_energy: np.ndarray | None
    weights: BoltzmannWeights
    forces: np.ndarray | None = None
    force_errors: np.ndarray | None = None
    ml_forces: np.ndarray | None = None
    electrons: ElectronSamples | None = None

    @property
    def mean_energy_per_atom(self) -> tuple[float, float]:
        """Mean of E_psi / N over p(x) and its standard error, in Ha."""
        energies, num_atoms = self.energy, self.protons.shape[1]
        error = energies.std(ddof=1) / math.sqrt(len(energies)) if len(energies) > 1 else math.nan
        return float(energies.mean()) / num_atoms, float(error) / num_atoms

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the weights are not to be trusted; empty if they are."""
        if self.weights.noise > MAX_NOISE:
            wanted = math.ceil(self.weights.noise / MAX_NOISE)
            return (
                f"{self.point}: the noise of E_psi is {math.sqrt(self.weights.noise):.2g} kT and blurs the weights: "
                f"raise sample.num_sweeps by a factor of {wanted}",
            )
        return ()


@dataclass(frozen=True)
class Samples:
    """What `sample` gives.

    Attributes:
        states: samples of each state point.
        spacing: sweeps between two configurations of a chain.
        autocorrelation_time: of the chains, in sweeps.
        reasons: what is not to be trusted; empty if all is.
        provenance: run, step, seed and settings.
        file: the extxyz file; None where nothing was written.
    """

    states: tuple[StateSamples, ...]
    spacing: int
    autocorrelation_time: float
    reasons: tuple[str, ...]
    provenance: dict[str, Any] = field(default_factory=dict)
    file: Path | None = None

    @property
    def table(self) -> pd.DataFrame:
        """A row for each configuration, energies in Ha of the whole cell."""
        blocks = []
        for each in self.states:
            columns: dict[str, Any] = {"rs": each.point.rs, "temperature_kelvin": each.point.temperature_kelvin}
            columns |= {"log_prob": each.log_prob, "energy": each.energy, "energy_error": each.energy_error}
            if each.ml_energy is not None:
                columns["ml_energy"] = each.ml_energy
            blocks.append(pd.DataFrame(columns | {"log_weight": each.weights.log_weight}))
        return pd.concat(blocks, ignore_index=True)

    def atoms(self) -> list[Atoms]:
        """The configurations as ASE has them, with E_psi in eV as energy and the rest in `info` and `arrays`."""
        return [frame for each in self.states for frame in _frames(each)]

    def write(self, folder: str | Path) -> Path:
        """Write samples.extxyz, samples.json and, with electrons, walkers.h5 into a folder; returns the first."""
        home = Path(folder)
        home.mkdir(parents=True, exist_ok=True)
        with whole_file(home / "samples.extxyz") as stream:
            write_atoms(stream, self.atoms(), format="extxyz")
        content = self.provenance | {"units": UNITS, "spacing_sweeps": self.spacing, "reasons": list(self.reasons)}
        content["autocorrelation_time_sweeps"] = self.autocorrelation_time
        content["states"] = [_description(each) for each in self.states]
        if any(each.forces is not None for each in self.states):
            content["forces"] = FORCES_NOTE
        if any(each.electrons is not None for each in self.states):
            write_walkers(home / "walkers.h5", self.states)
        write_json(home / "samples.json", content)
        return home / "samples.extxyz"


def _frames(samples: StateSamples) -> list[Atoms]:
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


def _description(samples: StateSamples) -> dict[str, Any]:
    mean, error = samples.mean_energy_per_atom
    return {
        "rs": samples.point.rs,
        "temperature_kelvin": samples.point.temperature_kelvin,
        "num_samples": len(samples.energy),
        "energy_per_atom": {"value": mean, "error": error},
        "weights": {
            "effective_size": samples.weights.effective_size,
            "noise_variance_kT2": samples.weights.noise,
            "noise": "corrected for Gaussian noise; the noise divides effective_size by about exp(variance)",
        },
    }
