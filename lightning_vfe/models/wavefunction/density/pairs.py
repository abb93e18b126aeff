"""What is known of every pair of an electron and another particle: features of the streams, terms of the cusps."""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from lightning_vfe.models.wavefunction.backbone import PairStream
from lightning_vfe.models.wavefunction.density.layout import first_walkers, repeat_walkers
from lightning_vfe.models.wavefunction.jastrow import (
    ELECTRON_PROTON_CUSP,
    OPPOSITE_SPIN_CUSP,
    SAME_SPIN_CUSP,
    CuspJastrow,
)
from lightning_vfe.physics.state_point import WalkerStates

TINY = 1e-30
"""Keeps the derivative of a distance finite where it is zero, and is far below rounding elsewhere."""
CENTRE = 1.5
"""Origin of the angles, near the middle of the cell: small angles have small errors. Exact in every precision."""

TANH_IS_ONE = 30.0
"""Where it is one to the last digit."""


class PairConstants(NamedTuple):
    """All of it for `pair_features`; a is L / pi, b the range of a cusp."""

    protons: Tensor
    """pi x / L - CENTRE. # (3, N, w)"""
    origin: Tensor
    """-CENTRE, with and without the pi / 2 that turns a sine into a cosine. # (2, 1, 1, 1)"""
    offset: Tensor
    """1, and 1 / b, by the sender's block and the receiver's spin. # (2, 4, 2, 1, 1, w)"""
    slope: Tensor
    """a, and a / b^2. # (2, 4, 2, 1, 1, w)"""
    kind: Tensor
    """1 for pairs of the same spin, and for all others. # (2, 4, N, n, 1)"""
    cusps: Tensor
    """Factor of b^2 / (b + d) in ln |psi|^2, zero for an electron itself. # (1, 4 N n)"""

    def for_walkers(self, count: int) -> PairConstants:
        """The same for `count` electron walkers of each proton walker."""
        protons, offset, slope = (repeat_walkers(x, count) for x in (self.protons, self.offset, self.slope))
        return self._replace(protons=protons, offset=offset, slope=slope)

    def first(self, count: int) -> PairConstants:
        """The same for the first `count` electron walkers alone."""
        protons, offset, slope = (first_walkers(x, count) for x in (self.protons, self.offset, self.slope))
        return self._replace(protons=protons, offset=offset, slope=slope)


def pair_constants(
    jastrow: CuspJastrow, protons_rs: Tensor, states: WalkerStates, unit_length: float, rs_ratio: Tensor
) -> PairConstants:
    """From protons (W, N, 3) in units of rs, and rs / rs_0 (W,)."""
    num = protons_rs.shape[1]
    inside = torch.remainder(protons_rs, unit_length) * (math.pi / unit_length) - CENTRE
    angles = inside.permute(2, 1, 0).contiguous()
    log_ratio = torch.log(rs_ratio).unsqueeze(-1)
    ranges = rs_ratio.unsqueeze(-1) * softplus(jastrow.raw_ranges + jastrow.range_slopes * log_ratio)  # (W, 3)
    b_proton, b_opposite, b_same = ranges.unbind(-1)
    # (sender's block, receiver's spin)
    b = torch.stack([b_same, b_opposite, b_opposite, b_same, *[b_proton] * 4]).view(4, 2, 1, 1, -1)
    a = ((unit_length / math.pi) * states.rs).expand_as(b)
    spin = torch.arange(num, device=angles.device) // (num // 2)  # of the receiver
    same = (torch.arange(2, device=angles.device)[:, None, None] == spin[:, None]).to(angles)  # (2, N, 1)
    kind = angles.new_zeros(2, 4, num, num // 2, 1)
    kind[0, :2] = same.unsqueeze(-1)
    kind[1] = 1.0 - kind[0]
    # Every pair of electrons is here twice, an electron itself once.
    cusps = (SAME_SPIN_CUSP * kind[0] + OPPOSITE_SPIN_CUSP * kind[1]).mul_(-1.0)
    cusps[2:] = -2.0 * ELECTRON_PROTON_CUSP
    itself = torch.eye(num, dtype=angles.dtype, device=angles.device).view(num, 2, num // 2, 1).movedim(1, 0)
    cusps[:2] *= 1.0 - itself
    origin = angles.new_full((2, 1, 1, 1), -CENTRE)
    origin[0] += math.pi / 2.0
    offset, slope = torch.stack([torch.ones_like(b), 1.0 / b]), torch.stack([a, a / b.square()])
    return PairConstants(angles, origin, offset, slope, kind, cusps.view(1, -1))


def first_weights(pairs: PairStream, spin: bool) -> tuple[Tensor, Tensor]:
    """The first layer of a stream on the features of `pair_features`, and the stream of a vector zero.

    The layer is (F + 1, 9), and its last output is always one. The stream (F,) is that between particles of the same
    spin.

    sin(2 t) = 2 sin(t) cos(t), cos(2 t) = 1 - 2 sin(t)^2 and d^2 / (1 + d) = (1 + d) + 1 / (1 + d) - 2.
    """
    layer = cast(nn.Linear, pairs.layers[0])
    weight, bias = layer.weight, layer.bias  # inputs: three sines, three cosines, d^2 / (1 + d), spins
    sine, cosine, radial = weight[:, :3], weight[:, 3:6], weight[:, 6:7]
    at_zero = bias.unsqueeze(-1) + cosine.sum(-1, keepdim=True)  # (F, 1)
    constant = at_zero - 2.0 * radial
    same, others = (weight[:, 7:8], -weight[:, 7:8]) if spin else (torch.zeros_like(radial), torch.zeros_like(radial))
    columns = torch.cat([2.0 * sine, -2.0 * cosine, radial, constant + same, constant + others], dim=-1)
    one = torch.zeros_like(columns[:1])
    one[:, 7:] += TANH_IS_ONE
    return torch.cat([columns, one]), torch.tanh(at_zero + same).squeeze(-1)


def electron_angles(constants: PairConstants, origin: Tensor, positions: Tensor, unit_length: float) -> Tensor:
    """pi r / L + origin of electrons (W, B, N, 3) in units of rs, at any of their images.  # (..., 3, N, w)"""
    inside = torch.remainder(positions, unit_length).flatten(0, 1).permute(2, 1, 0)
    angles = torch.add(origin, inside, alpha=math.pi / unit_length)
    return angles.to(constants.protons.dtype, copy=True, memory_format=torch.contiguous_format)


class PairFeatures(NamedTuple):
    """Of all pairs of all walkers."""

    angles: Tensor
    """pi r / L - CENTRE of the electrons. # (3, N, w)"""
    features: Tensor
    """sin(t) cos(t) and sin(t)^2 of t = pi (r_i - r_j) / L, (1 + d) + 1 / (1 + d), and the kind. # (4, 9, N n w)"""
    cusps: Tensor
    """b^2 / (b + d). # (4 N n, w)"""


def pair_features(constants: PairConstants, positions: Tensor, unit_length: float) -> PairFeatures:
    """Of electrons (W, B, N, 3) in units of rs, at any of their images."""
    num, half = positions.shape[-2], positions.shape[-2] // 2
    receivers = electron_angles(constants, constants.origin, positions, unit_length)  # (2, 3, N, w)
    senders = torch.cat([receivers[1], constants.protons], dim=1)  # (3, 2 N, w)
    waves = (receivers.view(2, 3, 1, num, 1, -1) - senders.view(3, 4, 1, half, -1)).sin_()  # (2, 3, 4, N, n, w)
    products = waves * waves[1]
    squared = products[1].sum(0)
    distance = torch.sqrt(squared + TINY if torch.is_grad_enabled() else squared)  # d / a, (4, N, n, w)
    both = torch.addcmul(constants.offset, constants.slope, distance.view(4, 2, half, half, -1))
    inverse = both.reciprocal()  # (2, 4, 2, n, n, w)
    radial = (both[0] + inverse[0]).view(1, *distance.shape)
    kind = constants.kind.expand(-1, *distance.shape)
    features = torch.cat([products.flatten(0, 1), radial, kind])  # (9, 4, N, n, w)
    return PairFeatures(receivers[1], features.flatten(2).transpose(0, 1), inverse[1].view(4 * num * half, -1))


def distances(constants: PairConstants, angles: Tensor) -> Tensor:
    """Smooth distances in bohr of electrons and protons (N, N, w), from `PairFeatures.angles`."""
    waves = torch.sin(angles.unsqueeze(2) - constants.protons.unsqueeze(1))
    squared = waves.square().sum(0)
    length = constants.slope[0, 2, 0]  # L / pi, the same for all blocks
    return length * torch.sqrt(squared + TINY if torch.is_grad_enabled() else squared)
