"""Electrons of sampled configurations, and their HDF5 file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lightning_vfe.files import whole_file

if TYPE_CHECKING:
    from lightning_vfe.workflows.samples import StateSamples

UNITS = {
    "protons": "bohr",
    "log_prob": "ln p(x), lengths in bohr",
    "twists": "fractional: k = 2 pi twist / L",
    "twist_weights": "1",
    "electrons": "bohr, in any image; the first half has spin up",
    "log_psi": "ln psi",
    "local_energy": "Hartree, whole cell",
}


@dataclass(frozen=True)
class ElectronSamples:
    """Electrons of n configurations: samples of |psi_x(r)|^2, B for each of T twists.

    Attributes:
        twists: fractional, k = 2 pi twist / L; random ones differ between configurations.  # (n, T, 3)
        electrons: bohr, in any image; the first half has spin up.  # (n, T, B, N, 3)
        log_psi: ln psi_x(r), complex.  # (n, T, B)
        local_energy: E_loc of the whole cell in Ha, complex.  # (n, T, B)
        twist_weights: of the twist average, with the sum one.  # (T,)
    """

    twists: np.ndarray
    electrons: np.ndarray
    log_psi: np.ndarray
    local_energy: np.ndarray
    twist_weights: np.ndarray


def write_walkers(path: Path, states: Sequence[StateSamples]) -> None:
    """Write protons and electrons as HDF5, a group `state_0`, `state_1`, ... for each state point.

    A group has the attributes rs (bohr), temperature_kelvin and length (edge of the cube, bohr), and a dataset for
    each name in UNITS with its unit in the attribute `unit`. Complex numbers are h5py's pairs of r and i.

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
                group.create_dataset(name, data=array).attrs["unit"] = UNITS[name]
    with whole_file(path, "wb") as stream:
        stream.write(content.getbuffer())
