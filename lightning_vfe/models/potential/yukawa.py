"""Screened Coulomb repulsion of the protons."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lightning_vfe.errors import SettingError
from lightning_vfe.models.potential.potential import Potential
from lightning_vfe.models.potential.radial import quintic_switch
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.neighbors import NeighborList, find_pairs


class YukawaPotential(Potential):
    """E = N e_0 + sum over pairs and images of A exp(-r/l)/r s(r).

    The switch s is one up to half the cutoff and falls to zero at the cutoff, twice continuously differentiable; as
    both factors fall with r, the force is repulsive at every distance. With A = 1 close protons feel their bare
    repulsion 1/r. The default l is the Thomas-Fermi screening length 0.640 sqrt(rs) bohr at rs = 1.25 (N. W. Ashcroft
    and N. D. Mermin, Solid State Physics, eq. 17.55), for all densities: one potential serves all cells.

    Args:
        strength: A, 1 for bare protons, in units of e^2; zero or positive.
        screening_length: l in bohr.
        cutoff: where the repulsion ends, in bohr.
        energy_per_atom: e_0 in Ha.

    Raises:
        ValueError: a length is not positive, or the strength is negative.
    """

    cutoff: float

    def __init__(
        self,
        strength: float = 1.0,
        screening_length: float = 0.7,
        cutoff: float = 4.0,
        energy_per_atom: float = 0.0,
    ) -> None:
        super().__init__()
        if not (math.isfinite(strength) and strength >= 0):
            raise SettingError("strength", strength, "must be zero or positive", "bare protons repel with 1.0")
        for key, length in (("screening_length", screening_length), ("cutoff", cutoff)):
            if not (math.isfinite(length) and length > 0):
                raise SettingError(key, length, "must be positive, in bohr, for example 0.7 and 4.0")
        self.strength, self.screening_length, self.cutoff = float(strength), float(screening_length), float(cutoff)
        self.energy_per_atom = float(energy_per_atom)

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments that build this potential again."""
        names = ("strength", "screening_length", "cutoff", "energy_per_atom")
        return {name: getattr(self, name) for name in names}

    def energy(self, z: Tensor, cell: PeriodicCell, dilation: Tensor | None = None) -> Tensor:
        """E(z) in Ha (...) of protons (..., N, 3) in bohr; see `Potential.energy`."""
        self.check(z, cell)
        return self.energy_of_pairs(find_pairs(z, cell, self.cutoff, dilation))

    def energy_of_pairs(self, pairs: NeighborList) -> Tensor:
        """E in Ha (...) of pairs that reach as far as the cutoff, or further."""
        return self.pair_energy(pairs) + pairs.num_atoms * self.energy_per_atom

    def pair_energy(self, pairs: NeighborList) -> Tensor:
        """Sum of A exp(-r/l)/r s(r) over pairs that reach as far as the cutoff, or further.  # (...)"""
        distance = pairs.squared.sqrt()
        repulsion = self.strength * torch.exp(-distance / self.screening_length) / distance
        return pairs.sum_pairs(repulsion * quintic_switch(distance, 0.5 * self.cutoff, self.cutoff))
