"""Where on the phase diagram: one state point as plain numbers, and those of many walkers as tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from lightning_vfe.errors import SettingError
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.units import KELVIN_TO_HARTREE


@dataclass(frozen=True, order=True)
class StatePoint:
    """Density and temperature.

    Attributes:
        rs: Wigner-Seitz radius in bohr.
        temperature_kelvin: T of the nuclei; 0 where they are fixed and the electrons in their ground state.

    Raises:
        ValueError: rs or T is not a number, or rs is out of its range.
    """

    rs: float
    temperature_kelvin: float = 0.0

    def __post_init__(self) -> None:
        PeriodicCell(1, self.rs)  # refuses impossible densities
        temperature = self.temperature_kelvin
        if not isinstance(temperature, Real) or isinstance(temperature, bool) or not math.isfinite(temperature):
            raise SettingError("temperature_kelvin", temperature, "must be a finite number, such as 6000")
        if temperature < 0:
            raise SettingError("temperature_kelvin", temperature, "must not be negative", "give one such as 6000")

    @property
    def kT(self) -> float:
        """k_B T in Ha."""
        return KELVIN_TO_HARTREE * self.temperature_kelvin

    def cell(self, num_atoms: int) -> PeriodicCell:
        """The periodic cell of N atoms at this density."""
        return PeriodicCell(num_atoms, self.rs)

    def __str__(self) -> str:
        temperature = f", T = {self.temperature_kelvin:g} K" if self.temperature_kelvin else ""
        return f"rs = {self.rs:g}{temperature}"


@dataclass(frozen=True)
class WalkerStates:
    """The state point and the twist of every walker. Leading dimensions broadcast with those of the positions.

    Attributes:
        rs: in bohr.  # (...)
        kT: k_B T in Ha; zero where the protons are fixed.  # (...)
        twist: fractional, k = 2 pi twist / L.  # (..., 3)
    """

    rs: Tensor
    kT: Tensor
    twist: Tensor

    @staticmethod
    def at(
        rs: float, temperature_kelvin: float = 0.0, twist: object = (0.0, 0.0, 0.0), like: Tensor | None = None
    ) -> WalkerStates:
        """One state point for all walkers.

        Args:
            rs: in bohr.
            temperature_kelvin: T.
            twist: fractional, (3,), or one for each walker, (..., 3).
            like: a tensor of the wanted type and device; None takes torch's default.
        """
        like = torch.empty(0) if like is None else like
        vectors = torch.as_tensor(twist).to(like)
        shape = vectors.shape[:-1]
        kT = KELVIN_TO_HARTREE * temperature_kelvin
        return WalkerStates(like.new_full(shape, rs), like.new_full(shape, kT), vectors)

    def __getitem__(self, index: object) -> WalkerStates:
        """The states of some walkers, by an index of the first dimension."""
        return WalkerStates(self.rs[index], self.kT[index], self.twist[index])  # type: ignore[index]

    def __len__(self) -> int:
        return len(self.rs)

    @property
    def shape(self) -> torch.Size:
        """Leading dimensions."""
        return self.rs.shape

    def unsqueeze(self, dim: int) -> WalkerStates:
        """A new leading dimension of length one, counted from the front."""
        return WalkerStates(self.rs.unsqueeze(dim), self.kT.unsqueeze(dim), self.twist.unsqueeze(dim))

    def expand(self, *shape: int) -> WalkerStates:
        """The same states with the leading dimensions of this shape."""
        return WalkerStates(self.rs.expand(shape), self.kT.expand(shape), self.twist.expand(*shape, 3))

    def flatten(self) -> WalkerStates:
        """One leading dimension."""
        return WalkerStates(self.rs.reshape(-1), self.kT.reshape(-1), self.twist.reshape(-1, 3))

    def split(self, size: int) -> list[WalkerStates]:
        """Parts of at most `size` walkers."""
        return [self[start : start + size] for start in range(0, len(self), size)]

    def to(self, like: torch.dtype | torch.device | Tensor) -> WalkerStates:
        """The same in another type, or on another device."""
        return WalkerStates(self.rs.to(like), self.kT.to(like), self.twist.to(like))
