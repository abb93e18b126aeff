"""Pair functions of plane waves: they depend on two positions only, so few derivatives are formed before the sum."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_vfe.forward_laplacian.laplacian_tensor import LaplacianTensor, TensorLike


def paired_plane_waves(first: TensorLike, second: TensorLike, wavevectors: Tensor, pairing: Tensor) -> Any:
    r"""Phi_ij = sum_kk' exp(i k . z_i) F_kk' exp(i k' . z_j), (..., K, M, N) complex, of plain or carried positions.

    With d_c = d/dz_c, D the Jacobians and G_cc'(i, j) = sum_tangents D_ic D_jc', the chain rule needs of each particle
    exp(i k . z), its three derivatives, and (i k . lap z - k^T G(i, i) k) exp(i k . z):

        lap Phi = (lap_i + lap_j) Phi + 2 sum_cc' (d_c d_c' Phi) G_cc'(i, j).

    Args:
        first: z_i in bohr.  # (..., M, 3)
        second: z_j in bohr.  # (..., N, 3)
        wavevectors: k in 1/bohr; leading dimensions broadcast.  # (..., k, 3)
        pairing: F, complex.  # (..., K, k, k)
    """
    if not isinstance(first, LaplacianTensor) or not isinstance(second, LaplacianTensor):
        left, right = (_plane_waves(z, wavevectors) for z in (first, second))
        return torch.einsum("...dil,...jl->...dij", torch.einsum("...ik,...dkl->...dil", left, pairing), right)
    num, tangents = first.shape[-2], torch.cat([first.jacobian, second.jacobian], dim=-2)
    by_coordinate = tangents.flatten(-2).movedim(0, -1)  # (..., 3 (M + N), T)
    gram = (by_coordinate @ by_coordinate.mT).unflatten(-1, (-1, 3)).unflatten(-3, (-1, 3))  # (..., i, c, j, c')
    own = gram.diagonal(dim1=-4, dim2=-2).movedim(-1, -3)  # (..., M + N, 3, 3)
    left = _with_derivatives(first, own[..., :num, :, :], wavevectors)
    right = _with_derivatives(second, own[..., num:, :, :], wavevectors)
    turned = torch.einsum("...aik,...dkl->...dail", left, pairing)
    value = torch.einsum("...dil,...jl->...dij", turned[..., 0, :, :], right[..., 0, :, :])
    by_first = torch.einsum("...dcil,...jl->...dcij", turned[..., 1:4, :, :], right[..., 0, :, :])
    by_second = torch.einsum("...dil,...cjl->...dcij", turned[..., 0, :, :], right[..., 1:4, :, :])
    complex_tangents = tangents.movedim(0, -1).to(value.dtype)  # (..., M + N, 3, T)
    jacobian = torch.einsum("...dcij,...ict->...dijt", by_first, complex_tangents[..., :num, :, :])
    jacobian += torch.einsum("...dcij,...jct->...dijt", by_second, complex_tangents[..., num:, :, :])
    mixed = torch.einsum("...dail,...bjl->...daibj", turned[..., 1:4, :, :], right[..., 1:4, :, :])
    crossed = gram[..., :num, :, num:, :].transpose(-4, -3).transpose(-2, -1)  # (..., c, i, c', j)
    laplacian = 2.0 * (mixed * crossed.unsqueeze(-5)).sum((-4, -2))
    laplacian += torch.einsum("...dil,...jl->...dij", turned[..., 4, :, :], right[..., 0, :, :])
    laplacian += torch.einsum("...dil,...jl->...dij", turned[..., 0, :, :], right[..., 4, :, :])
    return LaplacianTensor(value, jacobian.movedim(-1, 0), laplacian)


def _plane_waves(z: TensorLike, wavevectors: Tensor) -> Any:
    """exp(i k . z), plain or carried."""
    phase: Any = z @ wavevectors.mT  # (..., N, k)
    return torch.complex(torch.cos(phase), torch.sin(phase))


def _with_derivatives(z: LaplacianTensor, own: Tensor, wavevectors: Tensor) -> Tensor:
    """exp(i k . z), its derivatives by z, and its part of the Laplacian; own is G(i, i).  # (..., 5, N, k)"""
    waves = _plane_waves(z.value, wavevectors)
    slopes = 1j * wavevectors.mT.unsqueeze(-2) * waves.unsqueeze(-3)  # (..., 3, N, k)
    squares = (wavevectors.unsqueeze(-3) @ own * wavevectors.unsqueeze(-3)).sum(-1)  # k^T G k, (..., N, k)
    second = torch.complex(-squares, z.laplacian @ wavevectors.mT) * waves
    return torch.cat([waves.unsqueeze(-3), slopes, second.unsqueeze(-3)], dim=-3)
