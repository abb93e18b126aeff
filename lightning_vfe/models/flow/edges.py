"""Relative vectors of all pairs of atoms to all periodic images within a cutoff, and the Jacobian of sums over them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.neighbors import image_steps

# A product of batches of matrices with fewer multiplications than this for each is slower on a CPU than to add up the
# outer products: torch then takes a plain loop (ContractionSize < 400 in LinearAlgebra.cpp).
SMALLEST_PRODUCT = 400


class Edges(nn.Module):
    """r = x_j - x_i + n of every pair of a receiver i and a sender j, for the same number M of images n at every pair.

    Positions and vectors are in units of the edge L of the cell.

    No image within the cutoff r_c is missing, wherever the atoms are: nothing is selected by distance, so that shapes
    are fixed, and there is no list that could overflow. Vectors beyond r_c are among them; every function of an edge
    carries the taper, which is zero there with its derivatives. An atom's own images (j = i, n != 0) count, the atom
    itself does not. The cutoff may exceed 1/2, and 1.

    The minimum image m of a pair lies in [-1/2, 1/2]^3. Per component, the next image lies on the other side of the
    atom, at m - sign(m), then come m + sign(m), and so on. Counted in this order, 4 images can be within 1/2 < r_c <
    1/sqrt(2), where a list for all signs of m has 7. Where it leaves fewer, they are also chosen by the component of m
    that is the largest, or the smallest: to step over the largest one is nearest, so that 2 images are enough there.

    Args:
        cell: the periodic cell.
        cutoff: r_c in the cell's unit of length.
        fewest: whether to choose images by a component of m, which takes three operations.
    """

    steps: Tensor
    """For each component that may be the chosen one; for any, where none is. # (1 or 3, M 3)"""
    one: Tensor
    same: Tensor
    """One for j = i. # (N, N)"""
    others: Tensor
    """Zero for an atom and itself, one for all other images. # (N_i, N_j, M)"""

    def __init__(self, cell: PeriodicCell, cutoff: float, fewest: bool = True) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.choice, steps = image_steps(cell, cutoff, fewest)
        self.num_images = steps.shape[1]
        same = torch.eye(cell.num_atoms)
        others = torch.ones(cell.num_atoms, cell.num_atoms, self.num_images)
        others[:, :, 0] -= same
        for name, constant in (
            ("steps", torch.from_numpy(steps).flatten(1)),
            ("same", same),
            ("others", others),
            ("one", torch.ones(())),
        ):
            self.register_buffer(name, constant.to(torch.get_default_dtype()), persistent=False)

    def forward(self, positions: Tensor) -> Tensor:
        """r.  # (W, N, 3) -> (W, N_i, N_j, M, 3)"""
        difference = positions.unsqueeze(1) - positions.unsqueeze(2)
        nearest = difference - difference.detach().round()
        if self.num_images == 1:
            return nearest.unsqueeze(3)
        with torch.no_grad():
            sides = torch.copysign(self.one, nearest)
            steps = self.steps
            if self.choice is not None:
                sizes = nearest.abs()
                chosen = sizes.argmax(-1) if self.choice == "largest" else sizes.argmin(-1)
                steps = steps.index_select(0, chosen.flatten())
            steps = steps.view(*nearest.shape[:3] if self.choice else (1, 1, 1), self.num_images, 3)
        return torch.addcmul(nearest.unsqueeze(3), sides.unsqueeze(3), steps)

    def roots_at_zero(self) -> Tensor:
        """What 1 - r^2 / r_c^2 is to be at r = 0.  # (N_i, N_j, M)

        It is one, and minus one for an atom and itself, so that the taper max(0, ...)^3 leaves it out.
        """
        return 2.0 * self.others - 1.0


def sum_images(left: Tensor, right: Tensor, onto: Tensor | None = None, factor: float = 1.0) -> Tensor:
    """factor sum_M left_Ma right_Mb, added to something.  # (..., M, a), (..., M, b), (..., a, b) -> (..., a, b)"""
    if left.shape[-2] * left.shape[-1] * right.shape[-1] < SMALLEST_PRODUCT:
        total = onto
        for rows, columns in zip(left.unsqueeze(-1).unbind(-3), right.unsqueeze(-2).unbind(-3), strict=True):
            total = rows * columns if total is None else torch.addcmul(total, rows, columns, value=factor)
        assert total is not None
        return total
    rows, columns = left.flatten(0, -3).mT, right.flatten(0, -3)
    if onto is None:
        found = torch.bmm(rows, columns)
    else:
        found = torch.baddbmm(onto.flatten(0, -3), rows, columns, alpha=factor)
    return found.view(*left.shape[:-2], *found.shape[1:])


def jacobian_of_sum(slopes: Tensor, same: Tensor, dim: int = 2) -> Tensor:
    """The Jacobian of the sum over all pairs that end in an atom i, with the columns of all atoms j.

    Each term depends on x_j - x_i: moving x_i is moving all the others the opposite way. For an atom's own images the
    two cancel.

    Args:
        slopes: derivatives of the terms of a pair with respect to x_j; axes 1 and 2 are the atoms.  # (W, N, N, ...)
        same: one for j = i, else zero.  # (N, N)
        dim: axis of j.

    Returns:
        d (sum of atom i) / d x_j.  # (W, N, N, ...)
    """
    same = same.view(*same.shape, *(1,) * (slopes.ndim - 3))
    return torch.addcmul(slopes, same, slopes.sum(dim, keepdim=True), value=-1.0)
