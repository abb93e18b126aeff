"""Eigenvectors of many Hermitian matrices by products of all of them at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lightning_vfe.models.wavefunction.secular import rank_one_update

SPACING = 2.0
"""Least distance of levels in a block, in units of rounding."""


def eigenvectors(matrices: Tensor) -> Tensor:
    """Unitary V (..., k, k) with V^H A V diagonal and its elements ascending, of Hermitian A (..., k, k).

    torch.linalg.eigh does the same, on CUDA one matrix after the other. Here every operation runs over the whole batch.
    The number of operations depends on k only, about 2450 for k = 64, and none of them waits for the device.

    Householder reflections make A tridiagonal; divide and conquer finds the eigenvectors of that (Cuppen, Numer. Math.
    36, 177 (1981)). The number of iterations is fixed, and levels may meet: V^H A V is diagonal to 2e-15 of the norm of
    A (1e-6 in float32), V^H V = 1 to rounding. Only levels as close as that may stand in another order. V has no
    derivative. Vectors of degenerate levels are any orthonormal basis of their space.
    """
    return _apply(matrices.detach())


class _Eigenvectors(torch.autograd.Function):
    """Hands a batch dimension of torch.func.vmap to the batch dimensions of the matrices: operations stay as few."""

    @staticmethod
    def forward(matrices: Tensor) -> Tensor:
        order = matrices.shape[-1]
        if order == 1:
            return torch.ones_like(matrices)
        return _eigenvectors(matrices.reshape(-1, order, order)).reshape(matrices.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        del inputs  # there is no derivative
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> None:
        del ctx, gradients  # there is no derivative

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], matrices: Tensor) -> tuple[Tensor, int]:
        del info  # the size of the batch, which the matrices have too
        assert in_dims[0] is not None
        return _apply(matrices.movedim(in_dims[0], 0)), 0


def _apply(matrices: Tensor) -> Tensor:
    vectors: Tensor = _Eigenvectors.apply(matrices)  # type: ignore[no-untyped-call]  # torch.autograd has no types
    return vectors


def _eigenvectors(matrices: Tensor) -> Tensor:
    """Of a batch (b, k, k), k > 1."""
    largest = matrices.abs().amax(dim=(-2, -1), keepdim=True)
    diagonal, coupling, basis = _tridiagonal(matrices / largest.clamp(min=torch.finfo(largest.dtype).tiny))
    vectors = torch.bmm(basis, _divide_and_conquer(diagonal, coupling).to(basis.dtype))
    # One step of Newton and Schulz makes them unitary to rounding.
    return 1.5 * vectors - 0.5 * torch.bmm(vectors, torch.bmm(vectors.mH, vectors))


def _tridiagonal(matrices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Diagonal (b, k), subdiagonal (b, k-1) >= 0 and Q (b, k, k) with A = Q T Q^H, for A (b, k, k) of order 1.

    One reflection 1 - 2 u u^H after the other moves a column onto its first element. Their product is
    1 - U S U^H, where 1/S is the upper triangle of U^H U with half its diagonal (Walker 1988).
    """
    order, block = matrices.shape[-1], matrices.clone()
    # A column of zeros has a reflection, too; in all others this is below rounding.
    shortest = torch.finfo(matrices.dtype).eps / 16.0
    reflectors = torch.zeros_like(block[:, 1:])  # one u in each row
    diagonal, coupling, phases = [block[:, 0, 0]], [], []
    for j in range(1, order):
        column, block = block[:, 1:, :1], block[:, 1:, 1:]
        length = torch.linalg.vector_norm(column, dim=1, keepdim=True)
        phase = torch.sgn(column[:, :1] + shortest**2)
        column[:, :1].addcmul_(phase, length + shortest)
        unit = reflectors[:, j - 1, j:].unsqueeze(-1)  # (b, k-j, 1)
        torch.div(column, torch.linalg.vector_norm(column, dim=1, keepdim=True), out=unit)
        image = torch.bmm(block, unit)
        image = torch.addcmul(image, unit, torch.bmm(unit.mH, image), value=-1.0)
        both = torch.cat([unit, image, unit], dim=-1)
        block.baddbmm_(both[..., :2], both[..., 1:].mH, alpha=-2.0)
        diagonal.append(block[:, 0, 0])
        coupling.append(length[:, 0, 0])
        phases.append(phase[:, 0, 0])
    identity = torch.eye(order, dtype=matrices.dtype, device=matrices.device)
    overlap = torch.bmm(reflectors.conj(), reflectors.mT).triu(1) + 0.5 * identity[1:, 1:]
    product = torch.linalg.solve_triangular(overlap, reflectors.conj(), upper=True)
    basis = identity - torch.bmm(reflectors.mT, product)
    phase = torch.stack(phases, dim=-1).neg().cumprod(dim=-1).unsqueeze(-2)
    basis = torch.cat([basis[..., :1], basis[..., 1:] * phase], dim=-1)
    return torch.stack(diagonal, dim=-1).real, torch.stack(coupling, dim=-1), basis


def _divide_and_conquer(diagonal: Tensor, coupling: Tensor) -> Tensor:
    """Eigenvectors (b, k, k), in columns, of symmetric tridiagonal matrices with subdiagonals >= 0.

    Without the coupling c between two halves, c taken off both ends that meet, the rest is c v v^T with two ones in v.
    The halves are solved first, from pairs on; k is filled up to a power of two by levels above all others.
    """
    order = diagonal.shape[-1]
    size = 1 << max(order - 1, 1).bit_length()
    row = diagonal.abs() + functional.pad(coupling, (0, 1)) + functional.pad(coupling, (1, 0))
    scale = row.amax(dim=-1, keepdim=True).clamp(min=torch.finfo(row.dtype).tiny)  # a bound of all levels
    diagonal = functional.pad(diagonal / scale, (0, size - order), value=1.5)
    coupling = functional.pad(coupling / scale, (0, size - order + 1))  # (b, size), the last one unused
    torn = coupling * (torch.arange(size, device=coupling.device) % 2)  # between the pairs
    diagonal = diagonal - torn - functional.pad(torn[:, :-1], (1, 0))
    levels, vectors = _pairs(diagonal.unflatten(-1, (-1, 2)), coupling[:, ::2])
    width = 2
    while width < size:
        levels, vectors = _merge(levels, vectors, coupling[:, width - 1 :: 2 * width])
        width *= 2
    return vectors[:, 0, :order, :order]


def _pairs(diagonal: Tensor, coupling: Tensor) -> tuple[Tensor, Tensor]:
    """Levels (..., 2) and eigenvectors (..., 2, 2), in columns, of [[a, c], [c, b]]."""
    half = 0.5 * (diagonal[..., 0] - diagonal[..., 1])
    middle, distance, angle = diagonal.mean(dim=-1), torch.hypot(half, coupling), 0.5 * torch.atan2(coupling, half)
    cosine, sine = angle.cos(), angle.sin()
    levels = torch.stack([middle - distance, middle + distance], dim=-1)
    return levels, torch.stack([-sine, cosine, cosine, sine], dim=-1).unflatten(-1, (2, 2))


def _merge(levels: Tensor, vectors: Tensor, coupling: Tensor) -> tuple[Tensor, Tensor]:
    """Levels (b, m, 2n) and eigenvectors (b, m, 2n, 2n) of pairs of blocks.

    They follow from those of the blocks, (b, 2m, n) and (b, 2m, n, n), and from the coupling (b, m) between the last
    site of one block and the first of the next. Levels closer than rounding are moved apart by rounding, and every
    level is coupled by at least rounding. Then one formula gives every eigenvector, and none has to be set aside.
    """
    eps, width = torch.finfo(levels.dtype).eps, levels.shape[-1]
    ends = torch.cat([vectors[:, ::2, -1], vectors[:, 1::2, 0]], dim=-1)  # (b, m, 2n)
    sorted_levels, order = levels.reshape(ends.shape).sort(dim=-1)
    step = SPACING * eps * torch.arange(2 * width, dtype=levels.dtype, device=levels.device)
    sorted_levels = (sorted_levels - step).cummax(dim=-1).values + step
    update = torch.gather(ends, -1, order) * coupling.sqrt().unsqueeze(-1)
    update = torch.copysign(update.abs().clamp(min=eps), update)
    new_levels, rows = rank_one_update(sorted_levels, update)
    rows = torch.empty_like(rows).scatter_(-1, order.unsqueeze(-2).expand_as(rows), rows)
    halves = rows.unflatten(-1, (2, width)).movedim(-3, -1)  # (b, m, 2, n, 2n)
    return new_levels, (vectors.unflatten(1, (-1, 2)) @ halves).flatten(-3, -2)
