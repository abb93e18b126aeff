"""Relative vectors within a cutoff, over all periodic images, and sums over them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_vfe.physics.cell import PeriodicCell


class Edges(nn.Module):
    """All r = x_j - x_i + L n with 0 < |r| < r_c, as one flat list over walkers, pairs and images.

    An atom's own images (j = i, n != 0) count. The cutoff may exceed L / 2, and L: every image within it is found, so
    that sums over the list are periodic functions of the positions, as smooth at the cutoff as their terms.

    Args:
        cell: the periodic cell.
        cutoff: r_c in bohr.
    """

    shifts: Tensor

    def __init__(self, cell: PeriodicCell, cutoff: float) -> None:
        super().__init__()
        self.cell, self.cutoff = cell, cutoff
        shifts = cell.image_shifts(cutoff, dtype=torch.float64)
        self.register_buffer("shifts", shifts.to(torch.get_default_dtype()), persistent=False)

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """List the relative vectors.

        Args:
            positions: bohr.  # (W, N, 3)

        Returns:
            r from i to an image of j, bohr  # (E, 3);  flat index of its pair (walker, j, i)  # (E,)
        """
        atoms = positions.shape[-2]
        nearest = self.cell.minimum_image(positions.unsqueeze(-2) - positions.unsqueeze(-3))  # (W, N_j, N_i, 3)
        with torch.no_grad():
            squared = (nearest.unsqueeze(-2) + self.shifts).square().sum(-1)  # (W, N_j, N_i, M)
            inside = squared < self.cutoff**2
            # The first shift is zero: with it, an atom is not its own neighbour.
            inside[..., 0] &= ~torch.eye(atoms, dtype=torch.bool, device=positions.device)
            pairs, image = inside.flatten(0, -2).nonzero(as_tuple=True)
        return nearest.reshape(-1, 3).index_select(0, pairs) + self.shifts.index_select(0, image), pairs

    def taper(self, squared: Tensor) -> tuple[Tensor, Tensor]:
        """c = (1 - r^2 / r_c^2)^3, which makes a term C2 at the cutoff, and (dc / dr) / r.

        Args:
            squared: r^2 of edges.  # (E, 1)
        """
        inside = (1.0 - squared / self.cutoff**2).clamp(min=0.0)
        return inside**3, inside.square() * (-6.0 / self.cutoff**2)


def sum_images(terms: Tensor, pairs: Tensor, positions: Tensor) -> Tensor:
    """Add up what belongs to the same pair.  # (E, ...) -> (W, N_j, N_i, ...)"""
    walkers, atoms, _ = positions.shape
    summed = terms.new_zeros(walkers * atoms**2, *terms.shape[1:]).index_add_(0, pairs, terms)
    return summed.view(walkers, atoms, atoms, *terms.shape[1:])


def add_receiver_columns_(jacobian: Tensor, slopes: Tensor) -> Tensor:
    """Complete, in place, the Jacobian of a sum over neighbours j that so far has the columns of the x_j only.

    Each term depends on x_j - x_i: moving x_i is moving all the others the opposite way. For an atom's own images the
    two cancel.

    Args:
        jacobian: d (sum of atom i) / d x_j.  # (..., N_i, N_j, 3)
        slopes: the derivatives of the single terms with respect to x_j.  # (..., N_i, N_j, 3)
    """
    jacobian.diagonal(dim1=-3, dim2=-2).sub_(slopes.sum(-2).transpose(-1, -2))
    return jacobian
