"""The uniform base density: no potential, E_ML = 0."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.units import GROUND_STATE, KELVIN_TO_HARTREE, check_temperature


class RandomNumbers(Protocol):
    """Where random numbers come from: the streams of the walkers."""

    def uniform(self, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
        """Uniform numbers in [0, 1) of this shape; its first entry is the number of walkers."""
        ...


class UniformBase(nn.Module):
    r"""p_base(z) = L^(-3N): E_ML = 0 and Z_ML = L^(3N), the absolute approach of Xie et al., PRL 131, 126501 (2023).

    Args:
        cell: the periodic cell.
        temperature_kelvin: T.

    Raises:
        ValueError: T is not positive.
    """

    free_energy_error = 0.0
    """Error of -kT ln Z_ML in Ha: it is known exactly."""

    def __init__(self, cell: PeriodicCell, temperature_kelvin: float) -> None:
        super().__init__()
        check_temperature(temperature_kelvin, GROUND_STATE)
        self.cell = cell
        self.log_volume = 3 * cell.num_atoms * math.log(cell.length)
        self.free_energy = -KELVIN_TO_HARTREE * temperature_kelvin * self.log_volume
        """-kT ln Z_ML in Ha, whole cell."""

    def energy(self, z: Tensor) -> Tensor:
        """E_ML(z) = 0 in Ha (...) of base protons (..., N, 3)."""
        return torch.zeros_like(z[..., 0, 0])

    def log_prob(self, z: Tensor, energy: Tensor | None = None) -> Tensor:
        """ln p_base(z) = -3N ln L (...) of base protons (..., N, 3); no energy enters."""
        return torch.full_like(z[..., 0, 0], -self.log_volume)

    def sample(self, num_walkers: int, random: RandomNumbers) -> Tensor:
        """Independent draws of base protons in bohr.  # (W, N, 3)"""
        return self.cell.length * random.uniform((num_walkers, self.cell.num_atoms, 3), torch.get_default_dtype())
