"""The determinant and the neural Jastrow factor of the electron density."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from lightning_vfe.models.wavefunction.density.streams import Streams
from lightning_vfe.models.wavefunction.geminal import NeuralGeminal


class GeminalConstants(NamedTuple):
    """Of the neural geminal and Jastrow factor; K is the number of determinants."""

    jastrow: Tensor
    """Twice the neural Jastrow factor of the states of all electrons. # (1, 2 S n)"""
    bilinear: Tensor
    """Symmetric, real and imaginary parts. # (2 K S, S)"""
    pair: Tensor
    """# (2 K, F)"""


def geminal_constants(geminal: NeuralGeminal, neural_jastrow: nn.Linear, half: int) -> GeminalConstants:
    """From the networks and n."""
    symmetric = 0.5 * (geminal.bilinear + geminal.bilinear.transpose(1, 2))
    return GeminalConstants(
        jastrow=2.0 * neural_jastrow.weight.view(1, 1, -1, 1).repeat(1, 2, 1, half).view(1, -1),
        bilinear=symmetric.movedim(-1, 0).flatten(0, 2).contiguous(),
        pair=pad(0.5 * geminal.pair.movedim(-1, 0).flatten(0, 1), (0, 1)),  # the last feature of a pair is a constant
    )


def log_squared_determinant(constants: GeminalConstants, envelope: Tensor, streams: Streams) -> Tensor:
    """2 ln |sum_K det[Phi_ij phi_ij]| (w,) of the electrons with these streams, and Phi (w, n, K, n), complex."""
    neural = _geminal(constants, streams)  # (2, K, n, n, w)
    neural = torch.view_as_complex(neural.permute(4, 2, 1, 3, 0).contiguous())  # (w, n, K, n)
    matrices = torch.addcmul(envelope, envelope, neural).transpose(1, 2)
    return _log_squared(matrices)


def _geminal(constants: GeminalConstants, streams: Streams) -> Tensor:
    """phi - 1, real and imaginary part, for up and down electron.  # (2, K, n, n, w)"""
    up, down = streams.electrons
    width, half, num_walkers = up.shape
    turned = torch.mm(constants.bilinear, up.flatten(1)).view(-1, width, half, 1, num_walkers)
    scores = (turned * down.unsqueeze(1)).sum(1)  # (2 K, n, n, w)
    first, second = streams.opposite
    pair = constants.pair[:, : len(first)]  # the fused streams have no constant feature
    scores.flatten(1).addmm_(pair, first.flatten(1))
    other = torch.mm(pair, second.flatten(1)).view_as(scores)
    geminal: Tensor = scores.add_(other.transpose(1, 2)).unflatten(0, (2, -1))
    return geminal


def _log_squared(matrices: Tensor) -> Tensor:
    """2 ln |sum_K det A_K| (w,) of complex matrices (w, K, n, n); nothing is read by the host."""
    if matrices.shape[1] == 1:
        factors = torch.linalg.lu_factor_ex(matrices.squeeze(1)).LU
        return 2.0 * torch.log(factors.diagonal(dim1=-2, dim2=-1).abs()).sum(-1)
    phase, log_abs = torch.linalg.slogdet(matrices)
    largest = log_abs.detach().amax(-1, keepdim=True)
    total = (phase * torch.exp(log_abs - largest)).sum(-1)
    log_squared: Tensor = 2.0 * (torch.log(total.abs()) + largest.squeeze(-1))
    return log_squared
