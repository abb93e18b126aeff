"""The streams of the backbone with merged weights.

The formula is that of models/wavefunction/backbone.py; stream_weights.py merges the weights. The last of the F features
of a pair is always one: its column of weights is the bias, which costs no pass over the pairs then.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_vfe.models.wavefunction.density.layout import added, repeat_walkers


class FirstLayer(NamedTuple):
    """All particles of a kind start in the same state: what follows from that is computed once.

    R is 4, or 2 if the layer is the last one and leaves the protons alone.
    """

    pairs: Tensor
    """Weights of the pair streams. # (4, F, 9)"""
    senders: Tensor
    """1 + V h. # (4, F, 1, w)"""
    start: Tensor
    """h. # (R, S, 1, w)"""
    base: Tensor
    """Argument of the tanh but for the messages along pairs with an electron. # (R, S, n w)"""
    to_electrons: Tensor
    """Weights of their messages. # (2, S, 4 F)"""
    to_protons: Tensor | None
    """Of those of the electrons to the protons. # (2, S, F)"""

    def for_walkers(self, count: int) -> FirstLayer:
        """The same for `count` electron walkers of each proton walker."""
        senders, start = repeat_walkers(self.senders, count), repeat_walkers(self.start, count)
        by_walker = self.base.unflatten(-1, (-1, self.start.shape[-1]))
        return self._replace(senders=senders, start=start, base=repeat_walkers(by_walker, count).flatten(-2))


class Layer(NamedTuple):
    """Any other layer."""

    pairs: Tensor
    """Weights of the pair streams. # (4, F, F)"""
    gates: Tensor
    """V. # (4, F, S)"""
    one: Tensor
    """# (1, 1, 1)"""
    own: Tensor
    """Weights of a particle's own state. # (R, S, S)"""
    sums: Tensor
    """Weights of the sums of the states of all blocks. # (R S, 4 S)"""
    bias: Tensor
    """# (R S, 1)"""
    to_electrons: Tensor
    """Weights of their messages. # (2, S, 4 F)"""
    to_protons: Tensor | None
    """Of the messages of the electrons and of the protons to the protons. # (2, S, 2 F)"""
    proton_pairs: Tensor | None
    """Streams of the pairs of protons, zero for a proton itself. # (F W, N, N)"""


class StreamConstants(NamedTuple):
    """All layers."""

    first: FirstLayer
    others: tuple[Layer, ...]


class Streams(NamedTuple):
    """What the last layer leaves."""

    electrons: Tensor
    """Single streams of the electrons by spin. # (2, S, n, w)"""
    pairs: Tensor
    """Streams of the pairs with the electrons as receivers. # (4, F, N, n, w)"""


def run_streams(constants: StreamConstants, features: Tensor, num_proton_walkers: int) -> Streams:
    """All layers on the features (4, 9, N n w) of the pairs."""
    pairs, states = _run_first(constants.first, features)
    for layer in constants.others:
        pairs, states = _run(layer, pairs, states, num_proton_walkers)
    return Streams(states[:2], pairs)


# --- layers ---------------------------------------------------------------------------------------------------------


def _run_first(layer: FirstLayer, features: Tensor) -> tuple[Tensor, Tensor]:
    half, num_walkers = layer.base.shape[-1] // layer.start.shape[-1], layer.start.shape[-1]
    pairs = torch.bmm(layer.pairs, features).tanh_()
    pairs = pairs.view(*pairs.shape[:2], 2 * half, half, num_walkers)  # (4, F, N, n, w)
    heard = _by_spin(pairs.sum(-2) * layer.senders)
    new = torch.baddbmm(layer.base[:2], layer.to_electrons, heard)
    if layer.to_protons is not None:
        heard = (pairs[2:].sum(2) * layer.senders[0]).flatten(2)  # (2, F, n w)
        new = torch.cat([new, torch.baddbmm(layer.base[2:], layer.to_protons, heard)])
    return pairs, added(new.tanh_().view(*new.shape[:2], half, num_walkers), layer.start)


def _run(layer: Layer, pairs: Tensor, states: Tensor, num_proton_walkers: int) -> tuple[Tensor, Tensor]:
    """New pairs (4, F, N, n, w) and states (R, S, n, w) from the old ones, with four blocks of states."""
    half, num_walkers = states.shape[-2:]
    receivers = len(layer.own)
    old, flat = pairs.flatten(2), states.flatten(2)
    pairs = added(torch.bmm(layer.pairs, old).tanh_(), old).view_as(pairs)
    senders = torch.baddbmm(layer.one, layer.gates, flat).view(4, -1, half, num_walkers)
    shared = torch.addmm(layer.bias, layer.sums, states.sum(2).flatten(0, 1))
    new = torch.bmm(layer.own, flat[:receivers])
    new.view(receivers, -1, half, num_walkers).add_(shared.view(receivers, -1, 1, num_walkers))
    heard = _by_spin((pairs * senders.unsqueeze(2)).sum(-2))
    new[:2].baddbmm_(layer.to_electrons, heard)
    if layer.to_protons is not None and layer.proton_pairs is not None:
        heard = _heard_by_protons(pairs[2:], senders, layer.proton_pairs, num_proton_walkers)
        new[2:].baddbmm_(layer.to_protons, heard)
    return pairs, added(new.tanh_(), flat[:receivers]).view(receivers, -1, half, num_walkers)


def _by_spin(messages: Tensor) -> Tensor:
    """(4, F, N, w) by the spin of the receiver.  # (2, 4 F, n w)"""
    by_spin: Tensor = messages.flatten(0, 1).unflatten(1, (2, -1)).flatten(2).transpose(0, 1)
    return by_spin


def _heard_by_protons(pairs: Tensor, senders: Tensor, proton_pairs: Tensor, num_proton_walkers: int) -> Tensor:
    """Messages of the electrons along pairs (2, F, N, n, w), and of the protons.  # (2, 2 F, n w)"""
    width, half, num_walkers = senders.shape[1:]
    of_electrons = senders[:2].transpose(0, 1).unsqueeze(-2)  # (F, 2, n, 1, w)
    from_electrons = (pairs.unflatten(2, (2, half)) * of_electrons).flatten(2, 3).sum(2)  # (2, F, n, w)
    by_walker = (width, half, num_proton_walkers, num_walkers // num_proton_walkers)
    of_protons = senders[2:].view(2, *by_walker).permute(1, 3, 0, 2, 4).contiguous()  # (F, W, 2, n, B)
    from_protons = torch.bmm(proton_pairs, of_protons.view(len(proton_pairs), 2 * half, -1))
    from_protons = from_protons.view(of_protons.shape).permute(2, 0, 3, 1, 4)  # (2, F, n, W, B)
    return torch.cat([from_electrons.view(2, *by_walker), from_protons], dim=1).flatten(2)
