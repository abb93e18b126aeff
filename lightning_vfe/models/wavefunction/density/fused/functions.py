"""The kernels as functions that PyTorch differentiates by the angles and the senders; all else is constant."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_vfe.models.wavefunction.density.fused.first_kernels import first_backward, first_forward
from lightning_vfe.models.wavefunction.density.fused.kernels import layer_backward, layer_forward
from lightning_vfe.models.wavefunction.density.fused.launch import LEAST_ROWS, launch, power_of_two
from lightning_vfe.models.wavefunction.density.pairs import PairConstants

COLUMNS = 128
"""Of a tile: more need more registers than a thread has."""


class FirstPairLayer(torch.autograd.Function):
    """First layer of the pair streams with its messages, see streams.py, and the sum of the cusps.

    `apply(angles, constants, weights, senders, is_last)` takes the angles of the electrons (3, N, w), the constants of
    the pairs, the weights (4, F + 1, 9) and senders (4, F + 1, 1, w) of `FirstLayer`. It returns

    - the pairs (4, F, N, n, w), or in the last layer those of opposite spin (2, F, n, n, w),
    - the messages to the electrons (4, F, N, w),
    - the messages of the electrons to the protons (2, F, n, w); empty in the last layer,
    - the sum of the pairs' cusps (1, w).
    """

    @staticmethod
    def forward(
        ctx: Any, angles: Tensor, constants: PairConstants, weights: Tensor, senders: Tensor, is_last: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See the class."""
        width, (_, num, num_walkers) = weights.shape[1] - 1, angles.shape
        every = torch.cat([angles, constants.protons], dim=1)
        read = (angles, every, constants.offset, constants.slope, constants.cusps, weights, senders)
        pairs, messages, to_protons = _new(angles, num, width, is_last)
        cusps = angles.new_empty(4, num_walkers)
        _launch(first_forward, (*read, pairs, messages, to_protons, cusps), num, num_walkers, width, is_last)
        ctx.save_for_backward(*read)
        ctx.is_last = is_last
        return pairs, messages, to_protons, cusps.sum(0, keepdim=True)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, of_pairs: Tensor, of_messages: Tensor, of_protons: Tensor, of_cusps: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Derivative by the angles."""
        read = ctx.saved_tensors
        (angles, *_, senders), (_, num, num_walkers) = read, read[0].shape
        width = senders.shape[1] - 1
        by_receivers = angles.new_empty(4, 3, num, num_walkers)
        by_senders = angles.new_empty(2, 3, num // 2, num_walkers)
        given = tuple(each.contiguous() for each in (of_pairs, of_messages, of_protons, of_cusps))
        _launch(first_backward, (*read, *given, by_receivers, by_senders), num, num_walkers, width, ctx.is_last)
        by_angles = by_receivers.sum(0) - by_senders.transpose(0, 1).flatten(1, 2)
        return by_angles, None, None, None, None


class PairLayer(torch.autograd.Function):
    """Another layer of the pair streams with its messages.

    `apply(pairs, senders, weights, is_last)` takes pairs (4, F, N, n, w), senders (4, F, n, w) and the weights
    (4, F + 1, F + 1) of `Layer`. It returns the same as `FirstPairLayer`, except for the cusps.
    """

    @staticmethod
    def forward(
        ctx: Any, pairs: Tensor, senders: Tensor, weights: Tensor, is_last: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        _, width, num, _, num_walkers = pairs.shape
        read = (pairs, weights, senders.contiguous())
        new = _new(pairs, num, width, is_last)
        _launch(layer_forward, (*read, *new), num, num_walkers, width, is_last)
        ctx.save_for_backward(*read)
        ctx.is_last = is_last
        return new

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_pairs: Tensor, of_messages: Tensor, of_protons: Tensor) -> tuple[Tensor | None, ...]:
        """Derivatives by the pairs and the senders."""
        pairs, weights, senders = ctx.saved_tensors
        _, width, num, half, num_walkers = pairs.shape
        by_pairs, by_senders = torch.empty_like(pairs), torch.empty_like(senders)
        by_electrons = pairs.new_empty(2, width, 2, half, 0 if ctx.is_last else num_walkers)
        given = tuple(each.contiguous() for each in (of_pairs, of_messages, of_protons))
        tensors = (pairs, weights, senders, *given, by_pairs, by_senders, by_electrons)
        _launch(layer_backward, tensors, num, num_walkers, width, ctx.is_last)
        if not ctx.is_last:
            by_senders[:2] += by_electrons.sum(0).transpose(0, 1)
        return by_pairs, by_senders, None, None


def _new(like: Tensor, num: int, width: int, is_last: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Memory for pairs, messages to the electrons, and to the protons, for as many walkers as `like` (..., w) has."""
    half, num_walkers = num // 2, like.shape[-1]
    shape = (2, width, half, half, num_walkers) if is_last else (4, width, num, half, num_walkers)
    to_protons = like.new_empty(2, width, half, 0 if is_last else num_walkers)
    return like.new_empty(shape), like.new_empty(4, width, num, num_walkers), to_protons


def _launch(kernel: Any, tensors: tuple[Tensor, ...], num: int, num_walkers: int, width: int, is_last: bool) -> None:
    """Run a kernel of pairs on all blocks of senders and all tiles of walkers."""
    features = max(LEAST_ROWS, power_of_two(width))
    launch(kernel, tensors, num, num_walkers, 4, COLUMNS, WIDTH=width, FEATURES=features, IS_LAST=is_last)
