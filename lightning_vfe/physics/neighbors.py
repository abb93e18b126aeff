"""Neighbours within a cutoff: the periodic images that matter, and the pairs of a batch as one flat list.

A list by distance has only the pairs that are there, and a shape that follows the positions. Whoever needs fixed shapes
takes all images of every pair, those of `image_steps`, and lets a taper remove what lies beyond the cutoff.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_vfe.physics.cell import PeriodicCell

# Protons at the same place count as 1e-12 bohr apart: their repulsion is then finite but beyond any temperature, and
# the gradient of that pair is zero instead of NaN.
SMALLEST_SQUARE = 1e-24


@dataclass(frozen=True)
class NeighborList:
    """Each unordered pair of a proton and a proton or an image within the cutoff, once.

    A proton with its own images counts: L n and -L n are one pair, whose first and second are the same proton. Then
    sum over pairs = 1/2 sum over protons and their neighbours.

    Attributes:
        squared: r^2 in bohr^2, differentiable.  # (E,)
        first: index of one proton among all W N of the batch.  # (E,)
        second: index of the other.  # (E,)
        batch: leading dimensions of the positions; W is their product.
        num_atoms: N.
    """

    squared: Tensor
    first: Tensor
    second: Tensor
    batch: torch.Size
    num_atoms: int

    @property
    def total_atoms(self) -> int:
        """W N."""
        return math.prod(self.batch) * self.num_atoms

    def sum_pairs(self, terms: Tensor) -> Tensor:
        """Sum over the pairs of each configuration.  # (E,) -> (...)"""
        owner = self.first // self.num_atoms
        return terms.new_zeros(math.prod(self.batch)).index_add(0, owner, terms).reshape(self.batch)

    def sum_atoms(self, terms: Tensor) -> Tensor:
        """Sum over the protons of each configuration.  # (W N,) -> (...)"""
        return terms.reshape(*self.batch, self.num_atoms).sum(-1)

    def exchange(self, values: Tensor, filters: Tensor) -> Tensor:
        """What each proton receives from its neighbours j: sum_j v_j W(r_ij).

        Args:
            values: v of all protons.  # (W N, F)
            filters: W of all pairs.  # (E, F)

        Returns:
            The sums.  # (W N, F)
        """
        received = torch.zeros_like(values).index_add(0, self.first, values.index_select(0, self.second) * filters)
        return received.index_add(0, self.second, values.index_select(0, self.first) * filters)


def find_pairs(z: Tensor, cell: PeriodicCell, cutoff: float, dilation: Tensor | None = None) -> NeighborList:
    """List the pairs of a batch of configurations; the cutoff may exceed L/2, and L.

    Under torch.func.vmap all samples share one list, of every pair and image that is within the cutoff in any of them:
    the sums are the same, for terms that vanish beyond the cutoff.

    Args:
        z: bohr, any image.  # (..., N, 3)
        cell: the periodic cell.
        cutoff: bohr.
        dilation: a factor of value one on all lengths of a configuration, to differentiate with respect to.  # (...)
    """
    batch, atoms = z.shape[:-2], cell.num_atoms
    table = candidates(cell, cutoff)
    first = torch.from_numpy(table.first).to(z.device)
    second = torch.from_numpy(table.second).to(z.device)
    shifts = torch.from_numpy(table.shifts).to(z)
    flat = z.reshape(-1, atoms, 3)
    nearest = cell.minimum_image(flat.index_select(1, second) - flat.index_select(1, first))  # (W, P, 3)
    with torch.no_grad():
        allowed = torch.from_numpy(table.allowed).to(z.device)
        inside: Tensor = _Inside.apply(nearest.detach(), shifts, allowed, cutoff)  # type: ignore[no-untyped-call]
        configuration, chosen, image = inside.nonzero(as_tuple=True)
    vectors = nearest.reshape(-1, 3).index_select(0, configuration * len(first) + chosen)
    vectors = vectors + shifts.index_select(0, image)
    if dilation is not None:
        vectors = vectors * dilation.reshape(-1, 1).index_select(0, configuration)
    return NeighborList(
        vectors.square().sum(-1).clamp(min=SMALLEST_SQUARE),
        configuration * atoms + first.index_select(0, chosen),
        configuration * atoms + second.index_select(0, chosen),
        batch,
        atoms,
    )


def all_pairs(z: Tensor, lengths: Tensor, table: Candidates) -> NeighborList:
    """Every pair and image of the table, within the cutoff or not, in cubes of different size.

    The number of pairs does not depend on the positions. Sums are those of `find_pairs` for terms that vanish beyond
    the cutoff, at least where no image is missing in the table.

    Args:
        z: bohr, any image.  # (W, N, 3)
        lengths: edges of the cubes in bohr.  # (W,)
        table: of a cell that is not larger.
    """
    atoms = z.shape[1]
    pair, image = (torch.from_numpy(each).to(z.device) for each in np.nonzero(table.allowed))
    first = torch.from_numpy(table.first).to(z.device)[pair]
    second = torch.from_numpy(table.second).to(z.device)[pair]
    steps = torch.from_numpy(table.steps).to(z)[image]
    reduced = (z.index_select(1, second) - z.index_select(1, first)) / lengths[:, None, None]
    vectors = (reduced - torch.round(reduced).detach() + steps) * lengths[:, None, None]  # (W, E, 3)
    offset = torch.arange(z.shape[0], device=z.device)[:, None] * atoms
    return NeighborList(
        vectors.square().sum(-1).clamp(min=SMALLEST_SQUARE).flatten(),
        (offset + first).flatten(),
        (offset + second).flatten(),
        z.shape[:1],
        atoms,
    )


@dataclass(frozen=True)
class Candidates:
    """Pairs i <= j  # (P,), translations in units of L and in bohr  # (M, 3), and which belong together  # (P, M)."""

    first: np.ndarray
    second: np.ndarray
    steps: np.ndarray
    shifts: np.ndarray
    allowed: np.ndarray


@functools.lru_cache(maxsize=16)
def candidates(cell: PeriodicCell, cutoff: float) -> Candidates:
    """All that does not depend on the positions; NumPy, since a tensor remembers the transform it was made in."""
    first, second = np.triu_indices(cell.num_atoms)
    steps = cell.image_vectors(cutoff)
    shifts = steps * cell.length
    # Of the translations n and -n, which give a proton the same own image twice, the one whose first component that
    # is not zero is positive.
    leading = np.select([shifts[:, d] != 0 for d in range(3)], [shifts[:, d] for d in range(3)], default=0.0)
    allowed = (first != second)[:, None] | (leading > 0)
    return Candidates(first, second, steps, shifts, allowed)


class _Inside(torch.autograd.Function):
    """Which images of which pairs are within the cutoff; the samples of a vmap give one answer for all."""

    @staticmethod
    def forward(nearest: Tensor, shifts: Tensor, allowed: Tensor, cutoff: float) -> Tensor:
        """(..., P, 3), (M, 3), (P, M) -> (..., P, M)"""
        # |d + s|^2 expanded, to save memory; rounding only matters where the terms vanish
        squared = nearest.square().sum(-1, keepdim=True) + 2.0 * nearest @ shifts.T + shifts.square().sum(-1)
        # not beyond, instead of within: a position that is NaN keeps its pairs, and the energy is NaN
        return ~(squared >= cutoff**2) & allowed

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004  torch's signature
        """Nothing to differentiate."""
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(
        info: Any,  # noqa: ARG004  torch's signature
        in_dims: tuple[int | None, ...],
        nearest: Tensor,
        shifts: Tensor,
        allowed: Tensor,
        cutoff: float,
    ) -> tuple[Tensor, None]:
        """The union over the samples, which has no dimension of theirs."""
        samples = nearest.movedim(in_dims[0] or 0, 0)
        inside: Tensor = _Inside.apply(samples, shifts, allowed, cutoff)  # type: ignore[no-untyped-call]
        return inside.any(0), None


class ImageSteps(NamedTuple):
    """The steps n of images that can be within a cutoff: sign(m) (|m| + n), by component, for a minimum image m."""

    choice: str | None
    """The component of m that tells which ones: the "largest" or the "smallest" in size; None where all are listed."""
    steps: np.ndarray
    """For the first, second and third component as the chosen one; zero is the first step. # (3, M, 3) or (1, M, 3)"""


def image_steps(cell: PeriodicCell, cutoff: float, fewest: bool = True) -> ImageSteps:
    """The shortest list of the images that can be within a cutoff for some m in [-L/2, L/2]^3.

    Args:
        cell: the periodic cell.
        cutoff: in its unit of length.
        fewest: whether a component of m may tell which ones.
    """
    steps = cell.image_vectors(cutoff).astype(np.float64)
    reach = cutoff / cell.length * (1.0 + 1e-12)
    found = {choice: _within(steps, choice, reach) for choice in (None, "largest", "smallest")[: 3 if fewest else 1]}
    choice = min(found, key=lambda choice: len(found[choice]))
    own = found[choice]
    if choice is None:
        return ImageSteps(None, own[None])
    # What holds for the first component as the chosen one holds for the others after an exchange.
    return ImageSteps(choice, np.stack([own, own[:, [1, 0, 2]], own[:, [2, 1, 0]]]))


def _within(steps: np.ndarray, choice: str | None, reach: float) -> np.ndarray:
    """The steps for which |m + n| <= reach, in units of L, for some 0 <= m <= 1/2 of which the first is chosen.

    |m + n| is smallest with each component as near to -n as it may be. The chosen one, t, bounds the others: all that
    would go beyond it are equal to t, and their best common value is the mean of their -n.
    """
    free = np.clip(-steps, 0.0, 0.5)
    if choice is not None:
        joined = (free > 0) if choice == "largest" else (free < 0.5)
        joined[:, 0] = True
        best = np.clip((-steps * joined).sum(-1) / joined.sum(-1), 0.0, 0.5)
        free = np.where(joined, best[:, None], free)
    within: np.ndarray = steps[((free + steps) ** 2).sum(-1) <= reach**2]
    return within
