"""The determinant and the neural Jastrow factor of the electron density."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from lightning_vfe.models.wavefunction.density.pairs import CENTRE
from lightning_vfe.models.wavefunction.density.streams import Streams
from lightning_vfe.models.wavefunction.geminal import NeuralGeminal


class DeterminantConstants(NamedTuple):
    """All of it; k is the number of plane waves, K that of determinants."""

    backflow: Tensor
    """pi / L times the shift of a state, by spin. # (2, 3, S)"""
    jastrow: Tensor
    """Twice the neural Jastrow factor of the states of all electrons. # (1, 2 S n)"""
    bilinear: Tensor
    """Symmetric, real and imaginary parts. # (2 K S, S)"""
    pair: Tensor
    """# (2 K, F)"""
    phases: Tensor
    """2 m of the plane waves, twice: for a cosine, and for a sine. # (3, 2 k)"""
    quarter: Tensor
    """pi / 2 for a cosine, zero for a sine. # (2 k,)"""
    pairing: Tensor
    """F of the envelope, complex, the determinants side by side. # (W, k, K k)"""


def determinant_constants(
    geminal: NeuralGeminal,
    backflow: nn.Linear,
    neural_jastrow: nn.Linear,
    integers: Tensor,
    pairing: Tensor,
    reference_length: Tensor,
    half: int,
) -> DeterminantConstants:
    """From the plane waves' whole numbers (k, 3), F (W, K, k, k), L at rs_0 and n.

    The twist is left out: it multiplies the waves of each electron by one phase, which |psi| does not feel.
    """
    # The plane waves of angles that begin at CENTRE miss this phase.
    shift = 2.0 * CENTRE * integers.sum(-1)
    shift = torch.complex(torch.cos(shift), torch.sin(shift))
    pairing = shift.unsqueeze(-1) * pairing * shift
    symmetric = 0.5 * (geminal.bilinear + geminal.bilinear.transpose(1, 2))
    phases = 2.0 * torch.stack([integers, integers], dim=-1)  # (k, 3, 2)
    quarter = torch.zeros_like(integers[:, :2])
    quarter[:, 0] += math.pi / 2.0
    return DeterminantConstants(
        backflow=(backflow.weight * (math.pi / reference_length)).repeat(2, 1, 1),
        jastrow=2.0 * neural_jastrow.weight.view(1, 1, -1, 1).repeat(1, 2, 1, half).view(1, -1),
        bilinear=symmetric.movedim(-1, 0).flatten(0, 2).contiguous(),
        pair=pad(0.5 * geminal.pair.movedim(-1, 0).flatten(0, 1), (0, 1)),  # the last feature of a pair is a constant
        phases=phases.transpose(0, 1).flatten(1).contiguous(),
        quarter=quarter.flatten(),
        pairing=pairing.transpose(1, 2).flatten(2).contiguous(),
    )


def log_squared_determinant(constants: DeterminantConstants, streams: Streams) -> Tensor:
    """2 ln |sum_K det[Phi_ij phi_ij]| (w,) of the electrons with these streams."""
    envelope = _envelope(constants, streams.angles, streams.electrons)  # (w, n, K, n)
    neural = _geminal(constants, streams)  # (2, K, n, n, w)
    neural = torch.view_as_complex(neural.permute(4, 2, 1, 3, 0).contiguous())  # (w, n, K, n)
    matrices = torch.addcmul(envelope, envelope, neural).transpose(1, 2)
    return _log_squared(matrices)


def _envelope(constants: DeterminantConstants, angles: Tensor, electrons: Tensor) -> Tensor:
    """Phi (w, n, K, n) of the positions with backflow."""
    half, num_walkers = electrons.shape[-2:]
    flat = angles.view(3, 2, -1).transpose(0, 1)  # (2, 3, n w)
    z = torch.baddbmm(flat, constants.backflow, electrons.flatten(2))
    z = z.view(2, 3, half, num_walkers).permute(0, 3, 2, 1).contiguous().view(-1, 3)  # (2 w n, 3)
    waves = torch.addmm(constants.quarter, z, constants.phases).sin_()
    waves = torch.view_as_complex(waves.view(2, num_walkers, half, -1, 2))  # (2, w, n, k)
    num_waves, num_proton_walkers = waves.shape[-1], len(constants.pairing)
    left = torch.bmm(waves[0].reshape(num_proton_walkers, -1, num_waves), constants.pairing)  # (W, B n, K k)
    return torch.bmm(left.view(num_walkers, -1, num_waves), waves[1].mT).view(num_walkers, half, -1, half)


def _geminal(constants: DeterminantConstants, streams: Streams) -> Tensor:
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
