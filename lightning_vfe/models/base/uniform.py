"""The uniform base density: no potential, E_ML = 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from lightning_vfe.physics.state_point import WalkerStates
from lightning_vfe.physics.system import System


class RandomNumbers(Protocol):
    """Where random numbers come from: the streams of the walkers."""

    def uniform(self, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
        """Uniform numbers in [0, 1) of this shape; its first entry is the number of walkers."""
        ...


class UniformBase(nn.Module):
    r"""p_base(z) = L^(-3N): E_ML = 0 and Z_ML = L^(3N), the absolute approach of Xie et al., PRL 131, 126501 (2023).

    It serves any number of state points: ln Z_ML = 3N ln L is known for all of them.

    Args:
        system: the protons.
    """

    def __init__(self, system: System) -> None:
        super().__init__()
        self.system = system

    def energy(self, z: Tensor, states: WalkerStates) -> Tensor:
        """E_ML(z) = 0 in Ha (...) of base protons (..., N, 3)."""
        del states  # the energy is zero at all of them
        return torch.zeros_like(z[..., 0, 0])

    def log_prob(self, z: Tensor, states: WalkerStates, energy: Tensor | None = None) -> Tensor:
        """ln p_base(z) = -3N ln L (...) of base protons (..., N, 3)."""
        del energy  # zero
        return (-self._log_volume(states)).expand_as(z[..., 0, 0])

    def free_energy(self, states: WalkerStates) -> Tensor:
        """-kT ln Z_ML in Ha, whole cell.  # (...)"""
        return -states.kT * self._log_volume(states)

    def free_energy_error(self, states: WalkerStates) -> Tensor:
        """Standard error of -kT ln Z_ML in Ha: zero, it is known exactly.  # (...)"""
        return torch.zeros_like(states.kT)

    def sample(self, states: WalkerStates, random: RandomNumbers) -> Tensor:
        """Independent draws of base protons in bohr.  # (W, N, 3)"""
        numbers = random.uniform((len(states), self.system.num_atoms, 3), states.rs.dtype)
        return self._length(states)[:, None, None] * numbers

    def _length(self, states: WalkerStates) -> Tensor:
        """L in bohr.  # (...)"""
        return self.system.cell.length * states.rs

    def _log_volume(self, states: WalkerStates) -> Tensor:
        """3N ln L.  # (...)"""
        return 3 * self.system.num_atoms * torch.log(self._length(states))
