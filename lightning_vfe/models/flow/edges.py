"""Relative vectors within a cutoff, over all periodic images, and sums over them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_vfe.physics.cell import PeriodicCell


class Neighbours(NamedTuple):
    """The edges that end in every atom, K slots for each; unused slots hold a vector beyond the cutoff."""

    vectors: Tensor
    """r from the atom i to an image of its neighbour j, in units of rs. # (W, N, K, 3)"""
    senders: Tensor
    """Flat index of (walker, j). # (W N K,)"""
    pairs: Tensor
    """Flat index of (walker, i, j). # (W N K,)"""


class Edges(nn.Module):
    """All r = x_j - x_i + L n with 0 < |r| < r_c, sorted by the receiver i.

    An atom's own images (j = i, n != 0) count. The cutoff may exceed L / 2, and L: every image within it is found, so
    that sums over the edges are periodic functions of the positions, as smooth at the cutoff as their terms.

    Args:
        cell: the periodic cell in units of rs, as are all lengths here.
        cutoff: r_c.
    """

    shifts: Tensor
    far: Tensor

    def __init__(self, cell: PeriodicCell, cutoff: float) -> None:
        super().__init__()
        self.cell, self.cutoff = cell, cutoff
        shifts = cell.image_shifts(cutoff, dtype=torch.float64)
        # Every function of an edge carries the taper, and is zero here with its derivatives.
        far = torch.tensor([2.0 * cutoff, 0.0, 0.0])
        self.register_buffer("shifts", shifts.to(torch.get_default_dtype()), persistent=False)
        self.register_buffer("far", far, persistent=False)

    def forward(self, positions: Tensor) -> Neighbours:
        """List the neighbours of every atom.

        Args:
            positions: # (W, N, 3)
        """
        walkers, atoms, _ = positions.shape
        nearest = self.cell.minimum_image(positions.unsqueeze(1) - positions.unsqueeze(2))  # (W, N_i, N_j, 3)
        nearest = nearest.reshape(-1, 3)
        with torch.no_grad():
            pairs, images, used = self._slots(nearest, walkers, atoms)
            senders = pairs.div(atoms**2, rounding_mode="floor") * atoms + pairs.remainder(atoms)
        found = nearest.index_select(0, pairs) + self.shifts.index_select(0, images)
        vectors = torch.where(used.unsqueeze(-1), found, self.far)
        return Neighbours(vectors.view(walkers, atoms, -1, 3), senders, pairs)

    def _slots(self, nearest: Tensor, walkers: int, atoms: int) -> tuple[Tensor, Tensor, Tensor]:
        """Pair and image of every slot, and whether it is used.  # (W N K,) each"""
        squared = torch.addmm(self.shifts.square().sum(-1), nearest, self.shifts.T, alpha=2.0)
        inside = squared + nearest.square().sum(-1, keepdim=True) < self.cutoff**2  # (W N_i N_j, M)
        # The first shift is zero: with it, an atom is not its own neighbour.
        inside[:, 0].view(walkers, atoms, atoms).diagonal(dim1=1, dim2=2).fill_(False)
        counts = inside.view(walkers * atoms, -1).sum(-1)
        first = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        slots = int(torch.cat([counts, counts.new_ones(1)]).max())
        pairs, images = inside.nonzero(as_tuple=True)
        receivers = pairs.div(atoms, rounding_mode="floor")
        places = receivers * slots + torch.arange(len(pairs), device=pairs.device) - first[receivers]
        all_pairs = torch.arange(walkers * atoms, device=pairs.device).repeat_interleave(slots) * atoms
        all_images, used = torch.zeros_like(all_pairs), torch.zeros_like(all_pairs, dtype=torch.bool)
        all_pairs[places], all_images[places], used[places] = pairs, images, True
        return all_pairs, all_images, used

    def taper(self, squared: Tensor) -> tuple[Tensor, Tensor]:
        """c = (1 - r^2 / r_c^2)^3, which makes a term C2 at the cutoff, and (dc / dr) / r.

        Args:
            squared: r^2 of edges.
        """
        inside = (1.0 - squared / self.cutoff**2).clamp(min=0.0)
        return inside**3, inside.square() * (-6.0 / self.cutoff**2)


def squared_length(vectors: Tensor) -> Tensor:
    """r^2.  # (..., 3) -> (..., 1)"""
    x, y, z = vectors.split(1, dim=-1)  # several times faster than a sum over an axis of three
    return x * x + y * y + z * z


def sum_images(terms: Tensor, pairs: Tensor) -> Tensor:
    """Add up what belongs to the same pair.  # (W, N_i, K, ...) -> (W, N_i, N_j, ...)"""
    walkers, atoms = terms.shape[:2]
    return _sum_rows(terms, pairs).view(walkers, atoms, atoms, *terms.shape[3:])


def _sum_rows(terms: Tensor, pairs: Tensor) -> Tensor:
    """sum_images with one row for each pair.  # (W, N_i, K, ...) -> (W N_i N_j, ...)"""
    walkers, atoms = terms.shape[:2]
    return terms.new_zeros(walkers * atoms**2, *terms.shape[3:]).index_add_(0, pairs, terms.flatten(0, 2))


def jacobian_of_sum(slopes: Tensor, pairs: Tensor) -> Tensor:
    """The Jacobian of a sum over edges, with the columns of all atoms.

    Each term depends on x_j - x_i: moving x_i is moving all the others the opposite way. For an atom's own images the
    two cancel.

    Args:
        slopes: derivatives of the terms with respect to r (first of the last axes).  # (W, N, K, 3, ...)
        pairs: of the slots, from `Edges`.

    Returns:
        d (sum of atom i) / d x_j.  # (W, N_i, N_j, 3, ...)
    """
    walkers, atoms = slopes.shape[:2]
    own = torch.arange(walkers * atoms, device=pairs.device)
    own = own * atoms + own.remainder(atoms)
    # In rows, since to subtract from a view of the diagonal would have the backward pass copy the whole.
    jacobian = _sum_rows(slopes, pairs).index_add_(0, own, slopes.sum(2).flatten(0, 1), alpha=-1)
    return jacobian.view(walkers, atoms, atoms, *slopes.shape[3:])
