"""Databases of labels that a known potential makes."""

from pathlib import Path

import numpy as np
import torch

from lightning_vfe.labels.database import LabelState
from lightning_vfe.labels.label import Configuration, Label
from lightning_vfe.labels.store import LabelStore
from lightning_vfe.physics.units import HARTREE_PER_BOHR3_TO_GPA


def write_database(
    file: Path,
    potential,
    states=((4, 1.25), (6, 1.25)),
    count: int = 12,
    forces: bool = True,
    noise: float | None = None,
    seed: int = 0,
) -> Path:
    """`count` configurations of each (N, rs), labelled by the potential; with noise, energies have error bars."""
    rng = np.random.default_rng(seed)
    states = [LabelState(num_atoms, rs, 6000.0) for num_atoms, rs in states]
    store = LabelStore(file, states, {"_target_": "tests.helpers.Known", "seed": seed})
    store.update_metadata(code_version="0", command=["made by a test"])
    batches = []
    for state in states:
        drawn = [spread(rng, state.cell) for _ in range(count)]
        batches.append((state, [Configuration(positions, state.cell.length) for positions in drawn]))
    store.add_pending(batches, 0, "random")
    for row, state, configuration in store.pending():
        z = torch.as_tensor(configuration.positions).to(torch.get_default_dtype())
        energy, force = potential.energy_and_forces(z, state.cell)
        label = Label(float(energy), float(energy))
        if forces:
            pressure = float(potential.pressure(z, state.cell)) * HARTREE_PER_BOHR3_TO_GPA
            label = Label(float(energy), float(energy), force.numpy(), pressure)
        if noise is not None:
            error = noise * rng.uniform(0.5, 2.0)
            energy = float(energy) + error * rng.normal()
            label = Label(energy, energy, energy_error=error)
        store.finish(row, label)
    return file


def spread(rng, cell) -> np.ndarray:
    """Random protons in bohr, no two of them closer than 0.8 bohr. # (N, 3)"""
    while True:
        positions = rng.uniform(0, cell.length, (cell.num_atoms, 3))
        difference = positions[:, None] - positions[None]
        difference -= cell.length * np.round(difference / cell.length)
        distance = np.sqrt((difference**2).sum(-1)) + 10 * np.eye(cell.num_atoms)
        if distance.min() > 0.8:
            return positions
