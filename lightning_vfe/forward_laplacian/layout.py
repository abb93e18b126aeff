"""How the derivatives lie in memory while layers work on them, whatever their shape in `LaplacianTensor` says.

Particles: features, particles, tangents. Pairs: features, the three tangents, pairs. Products with weights and sums
over senders then are products of matrices, and all else runs over many contiguous numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_vfe.forward_laplacian.laplacian_tensor import LaplacianTensor, TensorLike


def num_indices(x: TensorLike) -> int:
    """Two for pairs in their own tangents, one for particles."""
    return 2 if isinstance(x, LaplacianTensor) and x.layout is not None else 1


def features_first(value: Tensor, num_indices: int = 1) -> Tensor:
    """(..., N, F) -> (..., F, N), or (..., M, N, F) -> (..., F, M, N) with two indices; without copying if it can."""
    return value.movedim(-1, -1 - num_indices).contiguous()


def features_last(value: Tensor, num_indices: int = 1) -> Tensor:
    """The view that turns back what features_first does."""
    return value.movedim(-1 - num_indices, -1)


def to_memory(jacobian: Tensor, num_indices: int = 1) -> Tensor:
    """(T, ..., N, F) -> (..., F, N, T), or (T, ..., M, N, F) -> (..., F, T, M, N) with two indices.

    Nothing is copied where memory lies that way already.
    """
    return jacobian.movedim((0, -1), (-1, -3) if num_indices == 1 else (-3, -4)).contiguous()


def from_memory(jacobian: Tensor, num_indices: int = 1) -> Tensor:
    """The view that turns back what to_memory does."""
    return jacobian.movedim((-1, -3) if num_indices == 1 else (-3, -4), (0, -1))


def by_tangent(factor: Tensor, num_indices: int = 1) -> Tensor:
    """A factor (..., F, N) or (..., F, M, N) that is the same for all tangents in memory."""
    return factor.unsqueeze(-1 if num_indices == 1 else -3)


def sum_of_squares(jacobian: Tensor, num_indices: int = 1) -> Tensor:
    """sum over tangents of J^2, from to_memory's arrangement to features_first's."""
    if num_indices == 2:
        return jacobian.square().sum(-3)
    squares: Tensor = torch.linalg.vector_norm(jacobian, dim=-1).square_()  # one pass; a square and a sum take three
    return squares


def weighted(weight: Tensor, features: Tensor, added_to: Tensor | None = None) -> Tensor:
    """sum_g A_fg x_g, (..., F, rest) from A (F, G) and x (..., G, rest), one product of matrices for each of (...).

    `rest` is one dimension. With `added_to` the result is added to it, in place.
    """
    batch = features.reshape(-1, *features.shape[-2:])
    factors = weight.expand(len(batch), *weight.shape)
    if added_to is None:
        return torch.bmm(factors, batch).view(*features.shape[:-2], len(weight), -1)
    added_to.view(-1, *added_to.shape[-2:]).baddbmm_(factors, batch)
    return added_to
