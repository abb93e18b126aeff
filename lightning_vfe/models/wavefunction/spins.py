"""What all wavefunctions of this package ask of the electrons, and the signs of their pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_vfe.errors import SettingError
from lightning_vfe.physics.system import System


def check_spins_and_sizes(system: System, **sizes: int) -> None:
    """Refuse electrons that cannot be paired, and networks without a layer, feature or determinant.

    Args:
        system: the electrons.
        sizes: numbers of the network by the names of their keys.

    Raises:
        SettingError: different numbers of up and down electrons, or a size below 1.
    """
    if system.num_up != system.num_down:
        if system.num_atoms % 2:
            raise SettingError("num_atoms", system.num_atoms, "must be even: half the electrons are up, half down")
        raise SettingError("num_up", system.num_up, f"must be {system.num_down}, the number of electrons down")
    for name, value in sizes.items():
        if value < 1:
            raise SettingError(name, value, "must be at least 1")


def spin_products(system: System) -> Tensor:
    """+1 for pairs of electrons of the same spin, -1 of opposite spin.  # (N, N)"""
    spin = torch.ones(system.num_atoms)
    spin[system.num_up :] = -1.0
    return torch.outer(spin, spin)
