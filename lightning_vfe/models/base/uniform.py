"""The uniform base density: no potential, E_ML = 0."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.units import KELVIN_TO_HARTREE


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
        if not temperature_kelvin > 0:
            raise ValueError(
                f"system.temperature_kelvin = {temperature_kelvin} must be positive; "
                "for T = 0 keep the protons fixed with system.protons=fixed"
            )
        self.log_volume = 3 * cell.num_atoms * math.log(cell.length)
        self.free_energy = -KELVIN_TO_HARTREE * temperature_kelvin * self.log_volume
        """-kT ln Z_ML in Ha, whole cell."""

    def energy(self, z: Tensor) -> Tensor:
        """E_ML(z) = 0 in Ha (...) of base protons (..., N, 3)."""
        return torch.zeros_like(z[..., 0, 0])

    def log_prob(self, z: Tensor) -> Tensor:
        """ln p_base(z) = -3N ln L (...) of base protons (..., N, 3)."""
        return torch.full_like(z[..., 0, 0], -self.log_volume)
