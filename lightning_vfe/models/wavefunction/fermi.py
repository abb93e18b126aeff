"""The Fermi function of many Hermitian matrices, with exact first derivatives."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_vfe.models.wavefunction.hermitian import eigenvectors

OPEN_SHELL = 2.0
"""beta times the distance of the chemical potential below the middle of the gap."""


def fermi_function(hamiltonian: Tensor, beta: Tensor, num_filled: int, batched: bool | None = None) -> Tensor:
    r"""1 / (1 + exp(beta (h - mu))) of Hermitian matrices (..., K, k, k), beta (K,) or (..., K) in 1/Ha.

    mu lies OPEN_SHELL / beta below the middle between the last filled and the first empty level. A gap wider than
    1 / beta does not feel that. Where both belong to one degenerate shell their weight is small, so that configurations
    with many electrons in the shell, far more numerous, do not outweigh those with the right number.

    The derivative of an eigenvector diverges where levels meet, that of this function does not. It is taken to first
    order in the eigenbasis with the divided differences of the Fermi function f (Daleckii and Krein 1965):
    f(X)_mn = f(x_m) delta_mn + (f(x_m) - f(x_n)) / (x_m - x_n) X_mn. The off-diagonal X vanishes, its derivative does
    not, so that values and first derivatives are exact (second derivatives are not).

    `batched` finds the eigenbasis by products of all matrices at once (hermitian.eigenvectors) instead of
    torch.linalg.eigh. Without it the device decides: LAPACK is faster on a CPU, the products are on a GPU.
    """
    if num_filled == hamiltonian.shape[-1]:
        shape = torch.broadcast_shapes(hamiltonian.shape, (*beta.shape, num_filled, num_filled))
        return torch.eye(num_filled, dtype=hamiltonian.dtype, device=hamiltonian.device).expand(shape)
    if batched is None:
        batched = hamiltonian.device.type != "cpu"
    fixed = hamiltonian.detach()
    vectors = eigenvectors(fixed) if batched else torch.linalg.eigh(fixed).eigenvectors
    rotated = vectors.mH @ hamiltonian @ vectors
    levels = rotated.diagonal(dim1=-2, dim2=-1).real
    chemical_potential = 0.5 * (levels[..., num_filled - 1] + levels[..., num_filled]).unsqueeze(-1)
    reduced = beta.unsqueeze(-1) * (levels - chemical_potential) + OPEN_SHELL  # (..., K, k)
    off_diagonal = rotated - torch.diag_embed(rotated.diagonal(dim1=-2, dim2=-1))
    first_order = _divided_differences(reduced.detach()) * beta[..., None, None] * off_diagonal
    return vectors @ (torch.diag_embed(torch.sigmoid(-reduced)).to(rotated.dtype) + first_order) @ vectors.mH


def _divided_differences(x: Tensor) -> Tensor:
    """(f(x_m) - f(x_n)) / (x_m - x_n) (..., k, k) of f(x) = 1 / (1 + e^x) for numbers (..., k)."""
    half_difference = 0.5 * (x.unsqueeze(-1) - x.unsqueeze(-2))
    # -[sinh(d) / d] / [4 cosh(x_m/2) cosh(x_n/2)] with d = (x_m - x_n) / 2 has no cancellation. It is written with
    # exponentials of negative numbers only.
    size = half_difference.abs().clamp(min=1e-6)
    sinh_ratio = -torch.expm1(-2.0 * size) / (2.0 * size)  # sinh(d) / d exp(-|d|)
    edges = torch.exp(-0.5 * x.abs())
    hyperbolic = (1.0 + edges.square()) / 2.0  # cosh(x/2) exp(-|x|/2)
    weight = torch.exp(size - 0.5 * (x.abs().unsqueeze(-1) + x.abs().unsqueeze(-2)))
    return -0.25 * sinh_ratio * weight / (hyperbolic.unsqueeze(-1) * hyperbolic.unsqueeze(-2))
