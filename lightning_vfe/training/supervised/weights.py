"""Weights of labels by their errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lightning_vfe.errors import SettingError
from lightning_vfe.training.supervised.labelled import LabelledSet


def with_error_weights(
    sets: Sequence[LabelledSet], floor_per_atom: float, reference: Sequence[LabelledSet], force_floor: float = 1e-3
) -> list[LabelledSet]:
    r"""Sets whose energies have the weights w_c ~ 1 / (sigma_c^2 + floor^2), mean one over the reference sets.

    sigma_c is the label's error per atom; labels without errors have sigma = 0, and sets without any have w = 1. Where
    the forces have errors, each component has such a weight, too.

    Args:
        sets: get the weights.
        floor_per_atom: what the potential itself cannot resolve, in Ha per atom; keeps single weights bounded.
        reference: the training sets.
        force_floor: the same of a component of the forces, in Ha/bohr.

    Raises:
        ValueError: a floor is not positive.
    """
    check_floors(floor_per_atom, force_floor)

    def of_energy(part: LabelledSet) -> Tensor:
        error = torch.zeros_like(part.energy) if part.energy_error is None else part.energy_error
        return floor_per_atom**2 / ((error / part.cell.num_atoms).square() + floor_per_atom**2)

    def of_forces(part: LabelledSet) -> Tensor | None:
        if part.forces_error is None:
            return None
        return force_floor**2 / (part.forces_error.square() + force_floor**2)

    mean = torch.cat([of_energy(part) for part in reference]).mean()
    forces = [weights.flatten() for part in reference if (weights := of_forces(part)) is not None]
    force_mean = torch.cat(forces).mean() if forces else 1.0
    found = []
    for part in sets:
        weights = of_forces(part)
        weights = None if weights is None else weights / force_mean
        found.append(replace(part, weights=of_energy(part) / mean, force_weights=weights))
    return found


def check_floors(energy_error_floor: float, force_error_floor: float) -> None:
    """Refuse floors of errors that would make weights infinite.

    Raises:
        ValueError: one line that begins with the setting.
    """
    if not energy_error_floor > 0:
        raise SettingError("energy_error_floor", energy_error_floor, "must be positive, in Ha per atom")
    if not force_error_floor > 0:
        raise SettingError("force_error_floor", force_error_floor, "must be positive, in Ha/bohr")
