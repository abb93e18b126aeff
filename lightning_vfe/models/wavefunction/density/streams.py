"""The streams of the backbone with merged weights.

The formula is that of models/wavefunction/backbone.py; stream_weights.py merges the weights. The last of the F features
of a pair is always one: its column of weights is the bias, which costs no pass over the pairs then.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_vfe.models.wavefunction.density.layout import added, first_walkers, repeat_walkers
from lightning_vfe.models.wavefunction.density.pairs import PairConstants, pair_features


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
    """Argument of the tanh except for the messages along pairs with an electron. # (R, S, n w)"""
    to_electrons: Tensor
    """Weights of their messages. # (2, S, 4 F)"""
    to_protons: Tensor | None
    """Of those of the electrons to the protons. # (2, S, F)"""

    def for_walkers(self, count: int) -> FirstLayer:
        """The same for `count` electron walkers of each proton walker."""
        senders, start = repeat_walkers(self.senders, count), repeat_walkers(self.start, count)
        by_walker = self.base.unflatten(-1, (-1, self.start.shape[-1]))
        return self._replace(senders=senders, start=start, base=repeat_walkers(by_walker, count).flatten(-2))

    def first(self, count: int) -> FirstLayer:
        """The same for the first `count` electron walkers alone."""
        by_walker = self.base.unflatten(-1, (-1, self.start.shape[-1]))
        senders, start = first_walkers(self.senders, count), first_walkers(self.start, count)
        return self._replace(senders=senders, start=start, base=first_walkers(by_walker, count).flatten(-2))


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

    def of_first(self, num_proton_walkers: int, of: int) -> StreamConstants:
        """The same for the first of the proton walkers alone, out of `of`."""
        count = self.first.start.shape[-1] // of * num_proton_walkers
        others = []
        for layer in self.others:
            pairs = layer.proton_pairs
            if pairs is not None:
                pairs = pairs.unflatten(0, (-1, of))[:, :num_proton_walkers].flatten(0, 1)
            others.append(layer._replace(proton_pairs=pairs))
        return StreamConstants(self.first.first(count), tuple(others))


class Streams(NamedTuple):
    """What the last layer leaves."""

    electrons: Tensor
    """Single streams of the electrons by spin. # (2, S, n, w)"""
    opposite: tuple[Tensor, ...]
    """Streams of the pairs of up and down, then of down and up, receivers first. # (F, n, n, w) each"""
    angles: Tensor
    """pi r / L - CENTRE of the electrons. # (3, N, w)"""
    cusps: Tensor
    """Sum of the cusps of all pairs in ln |psi|^2. # (1, w)"""


def plain_streams(pairs: PairConstants, constants: StreamConstants, positions: Tensor, unit_length: float) -> Streams:
    """All layers, for electrons (W, B, N, 3) in units of rs, at any of their images."""
    geometry = pair_features(pairs, positions, unit_length)
    cusps = torch.mm(pairs.cusps, geometry.cusps)
    streams, states = _run_first(constants.first, geometry.features)
    for layer in constants.others:
        streams, states = _run(layer, streams, states, len(positions))
    half = streams.shape[-2]
    return Streams(states[:2], (streams[1, :, :half], streams[0, :, half:]), geometry.angles, cusps)


# --- layers ---------------------------------------------------------------------------------------------------------


def _run_first(layer: FirstLayer, features: Tensor) -> tuple[Tensor, Tensor]:
    half, num_walkers = layer.base.shape[-1] // layer.start.shape[-1], layer.start.shape[-1]
    pairs = torch.bmm(layer.pairs, features).tanh_()
    pairs = pairs.view(*pairs.shape[:2], 2 * half, half, num_walkers)  # (4, F, N, n, w)
    from_electrons = None if layer.to_protons is None else pairs[2:].sum(2) * layer.senders[0]
    return pairs, first_states(layer, pairs.sum(-2) * layer.senders, from_electrons)


def _run(layer: Layer, pairs: Tensor, states: Tensor, num_proton_walkers: int) -> tuple[Tensor, Tensor]:
    """New pairs (4, F, N, n, w) and states (R, S, n, w) from the old ones, with four blocks of states."""
    old = pairs.flatten(2)
    pairs = added(torch.bmm(layer.pairs, old).tanh_(), old).view_as(pairs)
    senders, from_electrons = senders_of(layer, states), None
    if layer.to_protons is not None:
        of_electrons = senders[:2].transpose(0, 1).unsqueeze(-2)  # (F, 2, n, 1, w)
        by_spin = pairs[2:].unflatten(2, (2, -1))
        from_electrons = (by_spin * of_electrons).flatten(2, 3).sum(2)
    messages = (pairs * senders.unsqueeze(2)).sum(-2)
    return pairs, new_states(layer, states, senders, messages, from_electrons, num_proton_walkers)


def first_states(layer: FirstLayer, messages: Tensor, from_electrons: Tensor | None) -> Tensor:
    """States (R, S, n, w) after the first layer.

    Args:
        layer: its weights.
        messages: to the electrons, by the sender's block.  # (4, F, N, w)
        from_electrons: messages to the protons; None in the last layer.  # (2, F, n, w)
    """
    new = torch.baddbmm(layer.base[:2], layer.to_electrons, _by_spin(messages))
    if layer.to_protons is not None and from_electrons is not None:
        new = torch.cat([new, torch.baddbmm(layer.base[2:], layer.to_protons, from_electrons.flatten(2))])
    return added(new.tanh_().view(*new.shape[:2], -1, messages.shape[-1]), layer.start)


def senders_of(layer: Layer, states: Tensor) -> Tensor:
    """1 + V h (4, F, n, w) of the states h (4, S, n, w)."""
    return torch.baddbmm(layer.one, layer.gates, states.flatten(2)).view(4, -1, *states.shape[2:])


def new_states(
    layer: Layer,
    states: Tensor,
    senders: Tensor,
    messages: Tensor,
    from_electrons: Tensor | None,
    num_proton_walkers: int,
) -> Tensor:
    """States (R, S, n, w) after a layer.

    Args:
        layer: its weights.
        states: before it.  # (4, S, n, w)
        senders: of `senders_of`.  # (4, F, n, w)
        messages: to the electrons, by the sender's block.  # (4, F, N, w)
        from_electrons: messages to the protons; None in the last layer.  # (2, F, n, w)
        num_proton_walkers: W.
    """
    flat, receivers = states.flatten(2), len(layer.own)
    shared = torch.addmm(layer.bias, layer.sums, states.sum(2).flatten(0, 1))
    new = torch.bmm(layer.own, flat[:receivers])
    new.view(receivers, -1, *states.shape[2:]).add_(shared.view(receivers, -1, 1, states.shape[-1]))
    new[:2].baddbmm_(layer.to_electrons, _by_spin(messages))
    if layer.to_protons is not None and layer.proton_pairs is not None and from_electrons is not None:
        from_protons = messages_of_protons(senders[2:], layer.proton_pairs, num_proton_walkers)
        heard = torch.cat([from_electrons.view(from_protons.shape), from_protons], dim=1)
        new[2:].baddbmm_(layer.to_protons, heard.flatten(2))
    return added(new.tanh_(), flat[:receivers]).view(receivers, *states.shape[1:])


def _by_spin(messages: Tensor) -> Tensor:
    """(4, F, N, w) by the spin of the receiver.  # (2, 4 F, n w)"""
    by_spin: Tensor = messages.flatten(0, 1).unflatten(1, (2, -1)).flatten(2).transpose(0, 1)
    return by_spin


def messages_of_protons(senders: Tensor, proton_pairs: Tensor, num_proton_walkers: int) -> Tensor:
    """Messages of the protons (2, F, n, w), of both their blocks, to both.  # (2, F, n, W, B)"""
    _, width, half, num_walkers = senders.shape
    by_walker = senders.view(2, width, half, num_proton_walkers, num_walkers // num_proton_walkers)
    by_walker = by_walker.permute(1, 3, 0, 2, 4).contiguous()  # (F, W, 2, n, B)
    heard = torch.bmm(proton_pairs, by_walker.view(len(proton_pairs), 2 * half, -1))
    return heard.view(by_walker.shape).permute(2, 0, 3, 1, 4)
