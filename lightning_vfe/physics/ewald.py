"""Coulomb energy of protons and electrons in the cubic periodic cell: Ewald sums through structure factors.

N unit charges at r_i in a neutralising background have the energy, with the screening alpha and V = L^3,

    v = sum_{i<j} sum_n erfc(alpha |r_ij + L n|) / |r_ij + L n|
        + sum_{k != 0} (2 pi / V k^2) exp(-k^2 / 4 alpha^2) |S(k)|^2,             S(k) = sum_i exp(i k r_i)
        + (N/2) sum_{n != 0} erfc(alpha L |n|) / (L |n|) - N alpha / sqrt(pi) - pi N^2 / (2 V alpha^2).

The last line is constant: a charge with its own images (Madelung), with itself, and the background. Protons with
electrons have minus the first sum over all N^2 pairs, minus twice the second one with Re(S_p^* S_e) for |S|^2, plus
pi N^2 / (V alpha^2). Source: P. P. Ewald, Ann. Phys. 369, 253 (1921); background and Madelung terms as in
L. M. Fraser et al., Phys. Rev. B 53, 1814 (1996).

The second sum is in structure_factors.py, the choice of alpha and of the two cutoffs in screening.py.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.chunking import map_chunks, max_chunk_elements
from lightning_vfe.physics.screening import choose_screening
from lightning_vfe.physics.structure_factors import ReciprocalSum


class CoulombEnergies(NamedTuple):
    """Coulomb energies of the whole cell in Ha, Madelung and background terms included.

    Attributes:
        v_pp: protons with protons.  # (...)
        v_pe: protons with electrons.  # (...)
        v_ee: electrons with electrons.  # (...)
    """

    v_pp: Tensor
    v_pe: Tensor
    v_ee: Tensor


class Ewald:
    """Ewald sums of N protons and N electrons in a cubic cell.

    Args:
        cell: the periodic cell.
        relative_accuracy: bound for the truncation error of each energy relative to the Madelung energy of the N
            charges, 2.8373 N / (2 L); the actual error is usually far smaller. Between 1e-14 and 1.
        alpha_length: the screening times L; None minimises the cost at the required accuracy. The energies do
            not depend on it.

    Raises:
        ValueError: relative_accuracy or alpha_length is out of range.
    """

    def __init__(self, cell: PeriodicCell, relative_accuracy: float = 1e-8, alpha_length: float | None = None) -> None:
        self.cell = cell
        self.relative_accuracy = relative_accuracy
        self.screening = choose_screening(cell.num_atoms, relative_accuracy, alpha_length)
        self.alpha = self.screening.alpha_length / cell.length
        # Background between two species, then what a single species adds: its own images, itself, background.
        self._background = math.pi * cell.num_atoms**2 / (self.alpha**2 * cell.volume)
        itself = cell.num_atoms * self.alpha / math.sqrt(math.pi)
        self._own_energy = self._own_images() - itself - self._background / 2.0
        self._reciprocal = ReciprocalSum(cell, self.alpha, self.screening.max_square)

    def energies(self, protons: Tensor, electrons: Tensor, unit: Tensor | None = None) -> CoulombEnergies:
        """Coulomb energies of protons (charge +1) and electrons (charge -1), differentiable in both.

        The leading dimensions broadcast. If several electron walkers share their protons, give the protons a dimension
        of length one: their own sums are then computed once. Particles at the same place have an infinite energy
        (with a gradient of zero, not NaN, from that pair).

        Args:
            protons: in bohr, in any image, (W, 1, N, 3) for instance.  # (..., N, 3)
            electrons: in bohr, in any image, (W, B, N, 3) for instance.  # (..., N, 3)
            unit: unit of length of the cell, in the unit of the positions: rs in bohr for a cell in units of rs.
                Distances are divided by it after the subtraction, so that close particles keep their digits. Energies
                then are in Ha times that unit.  # (...)

        Returns:
            v_pp, v_pe and v_ee of the whole cell in Ha, each with the broadcast leading dimensions.

        Raises:
            ValueError: the last two dimensions are not (N, 3), or the others do not broadcast.
        """
        self._check("protons", protons)
        self._check("electrons", electrons)
        try:
            batch = torch.broadcast_shapes(protons.shape[:-2], electrons.shape[:-2])
        except RuntimeError:
            raise ValueError(
                f"protons of shape {tuple(protons.shape)} do not broadcast with electrons of shape "
                f"{tuple(electrons.shape)}; give protons a dimension of 1 for each one they share, as (W, 1, N, 3)"
            ) from None
        limit = self._reciprocal.favourable_configurations(electrons)
        unit = protons.new_ones(()) if unit is None else unit
        given = (protons, electrons, unit[..., None, None])
        aligned = [each[(None,) * (len(batch) + 2 - each.dim())] for each in given]
        return CoulombEnergies(*map_chunks(self._pair_energies, limit, *aligned))

    def proton_energy(self, protons: Tensor, unit: Tensor | None = None) -> Tensor:
        """Coulomb energy of N charges of one sign in a neutralising background, in Ha: the v_pp of `energies`.

        Args:
            protons: in bohr, in any image; or the electrons of jellium.  # (..., N, 3)
            unit: see `energies`.  # (...)

        Returns:
            Energy of the whole cell in Ha.  # (...)

        Raises:
            ValueError: the last two dimensions are not (N, 3).
        """
        self._check("protons", protons)
        limit = self._reciprocal.favourable_configurations(protons)
        unit = (protons.new_ones(()) if unit is None else unit)[..., None, None]
        unit = unit[(None,) * (protons.dim() - unit.dim())]
        return map_chunks(lambda *part: (self._energy(*part),), limit, protons, unit)[0]

    def _energy(self, positions: Tensor, unit: Tensor) -> Tensor:
        """Energy of one species.  # (..., N, 3) and (..., 1, 1) -> (...)"""
        return self._reciprocal.energy(positions / unit) + self._like_pairs(positions, unit) + self._own_energy

    def _pair_energies(self, protons: Tensor, electrons: Tensor, unit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """v_pp, v_pe and v_ee, with all leading dimensions.  # (..., N, 3) and (..., 1, 1) -> (...) each"""
        v_pp, v_pe, v_ee = self._reciprocal.pair_energies(protons / unit, electrons / unit)
        v_pp = v_pp + self._like_pairs(protons, unit) + self._own_energy
        v_ee = v_ee + self._like_pairs(electrons, unit) + self._own_energy
        v_pe = v_pe - self._unlike_pairs(protons, electrons, unit) + self._background
        return v_pp.expand_as(v_pe), v_pe, v_ee.expand_as(v_pe)

    def _check(self, name: str, positions: Tensor) -> None:
        num_atoms = self.cell.num_atoms
        if positions.shape[-2:] != (num_atoms, 3) or not positions.is_floating_point():
            raise ValueError(
                f"{name} of shape {tuple(positions.shape)} and type {positions.dtype} must be real numbers of shape "
                f"(..., {num_atoms}, 3): num_atoms = {num_atoms} positions in bohr"
            )

    def _own_images(self) -> float:
        """(N/2) sum_{n != 0} erfc(alpha L |n|) / (L |n|) in Ha."""
        distances = self.cell.image_shifts(7.0 / self.alpha, dtype=torch.float64)[1:].norm(dim=-1)
        return 0.5 * self.cell.num_atoms * float((torch.erfc(self.alpha * distances) / distances).sum())

    def _like_pairs(self, positions: Tensor, unit: Tensor) -> Tensor:
        """sum_{i<j} sum_n erfc(alpha |r_ij + L n|) / |r_ij + L n|.  # (..., N, 3) -> (...)"""
        first, second = torch.triu_indices(self.cell.num_atoms, self.cell.num_atoms, offset=1, device=positions.device)
        return self._screened_pairs(positions, positions, first, second, unit)

    def _unlike_pairs(self, protons: Tensor, electrons: Tensor, unit: Tensor) -> Tensor:
        """The same sum over all pairs of a proton and an electron.  # (..., N, 3) -> (...)"""
        atoms = torch.arange(self.cell.num_atoms, device=protons.device)
        first, second = torch.cartesian_prod(atoms, atoms).unbind(dim=-1)
        return self._screened_pairs(protons, electrons, first, second, unit)

    def _screened_pairs(self, left: Tensor, right: Tensor, first: Tensor, second: Tensor, unit: Tensor) -> Tensor:
        """Real-space sum over pairs (first[p], second[p]), a block of pairs at a time.  # (..., N, 3) -> (...)"""
        batch = torch.broadcast_shapes(left.shape[:-2], right.shape[:-2])
        # The pairs come last, in memory too: sums over the three components then run over contiguous numbers.
        left, right = left.transpose(-1, -2), right.transpose(-1, -2)
        shifts = torch.tensor(self.screening.images * self.cell.length, device=left.device, dtype=left.dtype)
        size = max(1, max_chunk_elements(left) // (max(3, len(shifts)) * max(1, math.prod(batch))))
        total = left.new_zeros(batch)
        for start in range(0, len(first), size):
            i, j = first[start : start + size], second[start : start + size]
            difference = left.index_select(-1, i) - right.index_select(-1, j)
            displacement = self.cell.minimum_image(difference / unit)
            squared = displacement.square().sum(dim=-2)  # (..., P)
            if len(shifts) > 1:
                # |d + s|^2 expanded: no image but the first comes closer than L/2, so nothing cancels.
                crossed = 2.0 * torch.einsum("...dp,md->...mp", displacement, shifts)
                squared = squared.unsqueeze(-2) + crossed + shifts.square().sum(dim=-1).unsqueeze(-1)  # (..., M, P)
            total = total + self._screened(squared).flatten(start_dim=len(batch)).sum(dim=-1)
        return total

    def _screened(self, squared: Tensor) -> Tensor:
        """erfc(alpha r) / r from r^2; infinite at r = 0, where the derivative is left out."""
        apart = squared > 0
        distance = torch.sqrt(torch.where(apart, squared, torch.ones_like(squared)))
        return torch.where(apart, torch.erfc(self.alpha * distance) / distance, torch.inf)
