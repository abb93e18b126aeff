"""Static structure factors S(k) of protons and electrons, and the fraction of protons in molecules."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightning_vfe.errors import SettingError
from lightning_vfe.physics.cell import PeriodicCell, integer_vectors
from lightning_vfe.physics.chunking import map_chunks, max_chunk_elements
from lightning_vfe.physics.observables import mean_of_walkers

KINDS = ("proton_proton", "electron_electron", "electron_proton", "charge_charge", "electron_fluctuation")

BOND_CUTOFF = 1.8
"""Largest length of a bond in bohr: H2 has 1.4, and neighbours without a bond are farther apart than both."""


@dataclass(frozen=True)
class StructureFactor:
    """S(k) of one kind on the shells of the reciprocal lattice.

    Attributes:
        k: length of the wavevectors of each shell in 1/bohr.  # (shells,)
        s: mean over the vectors of the shell, walkers and samples.  # (shells,)
        error: standard error from the spread of the independent proton walkers; nan with a single one.  # (shells,)
    """

    k: np.ndarray
    s: np.ndarray
    error: np.ndarray


class StructureFactors:
    r"""Collects S(k) of all kinds while the chains run, on the shells 0 < |n|^2 <= max_square of k = 2 pi n / L.

    With rho_p(k) = sum_i exp(i k x_i), rho_e(k) = sum_i exp(i k r_i), and <...>_x the mean over electrons at given x,

        proton_proton         <|rho_p|^2> / N
        electron_electron     <|rho_e|^2> / N
        electron_proton       <Re rho_e rho_p^*> / N
        charge_charge         <|rho_p - rho_e|^2> / N
        electron_fluctuation  <|rho_e - <rho_e>_x|^2> / N,     the electrons' own fluctuations at given protons.

    Independent uniform particles have 1, 1, 0, 2 and 1. The mean <rho_e>_x is known from B electron walkers only. The
    factor B / (B - 1) makes the last kind unbiased. It is left out with B = 1. Without protons only the second is left.

    Args:
        cell: the periodic cell, in bohr or in units of rs: positions are in its unit.
        max_square: largest |n|^2.

    Raises:
        SettingError: max_square is not positive.
    """

    def __init__(self, cell: PeriodicCell, max_square: int = 16) -> None:
        if max_square < 1:
            raise SettingError("max_square", max_square, "must be at least 1", "16 is usual")
        self.cell = cell
        vectors = integer_vectors(math.isqrt(max_square))
        squares = (vectors**2).sum(axis=1)
        # k and -k have the same |rho|^2: the later half of the vectors, by their order, holds one of each pair
        first = np.sign(vectors) @ np.array([4, 2, 1]) > 0
        chosen = (squares > 0) & (squares <= max_square) & first
        self.squares, shell = np.unique(squares[chosen], return_inverse=True)
        member = np.eye(len(self.squares))[shell]
        self._vectors = torch.from_numpy(vectors[chosen] * (2.0 * math.pi / cell.length))  # (K, 3)
        self._means = torch.from_numpy(member / member.sum(axis=0))  # (K, shells)
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    @property
    def multiplicities(self) -> np.ndarray:
        """Number of wavevectors of each shell.  # (shells,)"""
        multiplicities: np.ndarray = 2 * np.count_nonzero(self._means.numpy(), axis=0)
        return multiplicities

    def update(self, protons: Tensor, electrons: Tensor) -> None:
        """Add one sample of every walker.

        Args:
            protons: the same number W of walkers at every call.  # (W, N, 3), or (W, 0, 3)
            electrons: # (W, B, N, 3)
        """
        walkers, count = electrons.shape[:2]
        limit = max(1, max_chunk_elements(electrons) // (2 * count * self.cell.num_atoms * len(self._vectors)))

        def function(x: Tensor, r: Tensor) -> tuple[Tensor, ...]:
            return self._factors(x, r.unflatten(1, (count, -1)))

        found = map_chunks(function, limit, protons, electrons.reshape(walkers, -1, 3))
        self._count += 1
        for name, values in zip(KINDS if protons.shape[-2] else ("electron_electron",), found, strict=False):
            self._sums[name] = self._sums.get(name, 0.0) + values.double()

    def _factors(self, protons: Tensor, electrons: Tensor) -> tuple[Tensor, ...]:
        """S(k) of the kinds, for each walker.  # (w, N, 3) and (w, B, N, 3) -> (w, shells) each"""
        rho_e, means = self._density(electrons), self._means.to(electrons) / self.cell.num_atoms  # (w, B, 2, K)
        if protons.shape[-2] == 0:
            return (rho_e.square().sum(-2).mean(1) @ means,)
        rho_p = self._density(protons)  # (w, 2, K)
        mean = rho_e.mean(1)
        pp, ep = rho_p.square().sum(-2), (rho_p * mean).sum(-2)
        ee, count = rho_e.square().sum(-2).mean(1), electrons.shape[1]
        found = [pp, ee, ep, pp + ee - 2.0 * ep]
        if count > 1:
            found.append((ee - mean.square().sum(-2)) * (count / (count - 1)))
        return tuple(values @ means for values in found)

    def _density(self, positions: Tensor) -> Tensor:
        """Real and imaginary part of rho(k).  # (..., N, 3) -> (..., 2, K)"""
        angles = self.cell.minimum_image(positions) @ self._vectors.to(positions).T
        return torch.stack([torch.cos(angles).sum(-2), torch.sin(angles).sum(-2)], dim=-2)

    def per_walker(self) -> dict[str, Tensor]:
        """S(k) of each walker, to be gathered from all processes.

        Returns:
            float64, by the names of KINDS.  # (W, shells) each
        """
        return {name: values / self._count for name, values in self._sums.items()}

    def result(
        self, per_walker: dict[str, Tensor] | None = None, weights: Tensor | None = None, unit: float = 1.0
    ) -> dict[str, StructureFactor]:
        """Mean and error over the walkers; arguments and errors as of `RadialDistributions.result`."""
        walkers = self.per_walker() if per_walker is None else per_walker
        if not walkers:
            raise ValueError("S(k) has no samples yet; call update() with the walkers' positions first")
        k = np.sqrt(self.squares) * (2.0 * math.pi / (self.cell.length * unit))
        return {name: StructureFactor(k, *mean_of_walkers(values, weights)) for name, values in walkers.items()}


def molecular_fraction(protons: Tensor, cell: PeriodicCell, cutoff: Tensor | float = BOND_CUTOFF) -> Tensor:
    """Fraction of the protons in pairs that are close and mutual nearest neighbours.

    Each proton of such a pair is the nearest neighbour of the other, at a minimum-image distance up to the cutoff. The
    criterion looks at one configuration, not at the lifetime of a bond. A dense atomic fluid has such pairs by chance:
    of independent uniform points, 16/27 are mutual nearest neighbours. Compare states with the same cutoff.

    Args:
        protons: in the unit of the cell.  # (..., N, 3)
        cell: the periodic cell.
        cutoff: in the unit of the cell.  # (...)

    Returns:
        From 0 to 1.  # (...)
    """
    distance = cell.minimum_image(protons.unsqueeze(-2) - protons.unsqueeze(-3)).norm(dim=-1)  # (..., N, N)
    itself = torch.eye(protons.shape[-2], dtype=torch.bool, device=protons.device)
    nearest, partner = distance.masked_fill(itself, math.inf).min(dim=-1)  # (..., N)
    mutual = partner.gather(-1, partner) == torch.arange(protons.shape[-2], device=protons.device)
    close = nearest <= torch.as_tensor(cutoff).to(protons).unsqueeze(-1)
    fraction: Tensor = (mutual & close).to(protons.dtype).mean(-1)
    return fraction


def chance_fraction(rs: float, cutoff: float = BOND_CUTOFF) -> float:
    """The molecular fraction of independent uniform points, 16/27 [1 - exp(-27/16 (cutoff/rs)^3)].

    Two points at the distance r are mutual nearest neighbours if the two balls of radius r around them are empty
    otherwise. The union of these balls has 27/16 of the volume of one.

    Args:
        rs: in bohr.
        cutoff: in bohr.
    """
    return 16 / 27 * -math.expm1(-27 / 16 * (cutoff / rs) ** 3)
