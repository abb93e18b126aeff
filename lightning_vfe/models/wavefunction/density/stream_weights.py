"""The weights of the backbone merged into few products, once a sweep; see streams.py for what is made of them.

Pairs get one feature more than in the backbone, which is always one.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from lightning_vfe.models.wavefunction.backbone import Backbone, Mixing
from lightning_vfe.models.wavefunction.density.layout import walkers_last
from lightning_vfe.models.wavefunction.density.pairs import first_weights
from lightning_vfe.models.wavefunction.density.streams import FirstLayer, Layer, StreamConstants
from lightning_vfe.physics.state_point import WalkerStates


class Merged(NamedTuple):
    """The weights of one layer of the single streams."""

    gates: Tensor
    """# (4, F, S)"""
    own: Tensor
    """# (R, S, S)"""
    sums: Tensor
    """# (R S, 4 S)"""
    bias: Tensor
    """# (R S,)"""
    to_electrons: Tensor
    """# (2, S, 4 F)"""
    to_protons: Tensor | None
    """# (2, S, 2 F)"""


def stream_constants(
    backbone: Backbone, proton_pairs: list[Tensor], states: WalkerStates, log_rs_ratio: Tensor, num: int
) -> StreamConstants:
    """From the streams of the proton pairs (W, N, N, F) of every layer but the last, ln(rs / rs_0) (W,), and N."""
    streams: list[Tensor | None] = [*(pad(stream, (0, 1)) for stream in proton_pairs), None]
    start = [state.squeeze(-2) for state in backbone.starts(states.twist, log_rs_ratio)]  # (W, S) each
    (ee, itself), (ep, _) = first_weights(backbone.pairs_ee, True), first_weights(backbone.pairs_ep, False)
    merged = merged_weights(cast(Mixing, backbone.mixing[0]), itself, num)
    first = _first_layer(merged, _blocks(*start), _blocks(ee, ep), streams[0], num)
    others = []
    for number in range(1, len(backbone.mixing)):
        own, theirs = (cast(nn.Linear, pairs.layers[number]) for pairs in (backbone.pairs_ee, backbone.pairs_ep))
        itself = itself + torch.tanh(linear(itself, own.weight, own.bias))
        merged = merged_weights(cast(Mixing, backbone.mixing[number]), itself, num)
        pairs_pp = streams[number]
        others.append(
            Layer(
                pairs=_blocks(*(_with_bias(layer) for layer in (own, theirs))),
                gates=merged.gates,
                one=torch.ones_like(merged.gates[:1, :1, :1]),
                own=merged.own,
                sums=merged.sums,
                bias=merged.bias.unsqueeze(-1),
                to_electrons=merged.to_electrons,
                to_protons=merged.to_protons,
                proton_pairs=None if pairs_pp is None else pairs_pp.permute(3, 0, 1, 2).flatten(0, 1).contiguous(),
            )
        )
    return StreamConstants(first, tuple(others))


def merged_weights(mix: Mixing, itself: Tensor, num: int) -> Merged:
    """The weights of a layer for N = num particles of each kind.

    The pairs of an electron and all electrons of its spin include the electron itself, where the stream is a constant
    g_0 (F,). Its message, g_0 (1 + V h), is subtracted from the weights of the electron's own state and from the bias.
    """
    same, opposite, proton = (_weight(layer) for layer in mix.electron.messages)
    same, opposite, proton = same * (2.0 / num), opposite * (2.0 / num), proton / num
    own = [mix.electron.own.weight - (same * itself) @ mix.gate_electron.weight] * 2
    bias = [mix.electron.own.bias - same @ itself] * 2
    same, opposite, proton = (pad(weight, (0, 1)) for weight in (same, opposite, proton))
    to_electrons = [torch.cat([*both, proton, proton], dim=-1) for both in ((same, opposite), (opposite, same))]
    same, opposite, proton = (_weight(layer) for layer in mix.electron.means)
    same, opposite, proton = same * (2.0 / num), opposite * (2.0 / num), proton / num
    sums = [torch.cat([*both, proton, proton], dim=-1) for both in ((same, opposite), (opposite, same))]
    to_protons = None
    if mix.proton is not None:
        own += [mix.proton.own.weight] * 2
        bias += [mix.proton.own.bias] * 2
        electron, proton = (_weight(layer) / num for layer in mix.proton.means)
        sums += [torch.cat([electron, electron, proton, proton], dim=-1)] * 2
        heard = torch.cat([pad(_weight(layer) / num, (0, 1)) for layer in mix.proton.messages], dim=-1)
        to_protons = heard.repeat(2, 1, 1)
    gates = pad(_blocks(mix.gate_electron.weight, mix.gate_proton.weight), (0, 0, 0, 1))
    return Merged(gates, torch.stack(own), torch.cat(sums), torch.cat(bias), torch.stack(to_electrons), to_protons)


def _first_layer(merged: Merged, start: Tensor, pairs: Tensor, proton_pairs: Tensor | None, num: int) -> FirstLayer:
    """From the states at the start (4, W, S), and the weights of the pair streams (4, F, 9)."""
    start, half, receivers = start.movedim(1, 0), num // 2, len(merged.own)  # (W, 4, S)
    senders = 1.0 + torch.einsum("bfs,wbs->wbf", merged.gates, start)
    shared = linear(half * start.flatten(1), merged.sums, merged.bias).unflatten(-1, (receivers, -1))
    base = (shared + torch.einsum("rst,wrt->wrs", merged.own, start[:, :receivers])).unsqueeze(-1)
    base = base.repeat(1, 1, 1, half)  # (W, R, S, n)
    to_protons = None
    if merged.to_protons is not None and proton_pairs is not None:
        to_protons, from_protons = (part.contiguous() for part in merged.to_protons.chunk(2, dim=-1))
        heard = linear(proton_pairs.sum(2) * senders[:, 2:3], from_protons[0])  # (W, N, S)
        base[:, 2:] += heard.unflatten(1, (2, half)).mT
    return FirstLayer(
        pairs=pairs,
        senders=walkers_last(senders).unsqueeze(2),
        start=walkers_last(start[:, :receivers]).unsqueeze(2),
        base=walkers_last(base).flatten(2),
        to_electrons=merged.to_electrons,
        to_protons=to_protons,
    )


def _blocks(electron: Tensor, proton: Tensor) -> Tensor:
    """The same for both blocks of electrons, and the same for both of protons.  # (4, ...)"""
    return torch.stack([electron, electron, proton, proton])


def _weight(layer: nn.Module) -> Tensor:
    return cast(Tensor, layer.weight)


def _with_bias(layer: nn.Linear) -> Tensor:
    """Weights of inputs that end with a one. The last output is zero: nothing is added to that one.  # (F, F)"""
    return pad(torch.cat([layer.weight, layer.bias.unsqueeze(-1)], dim=-1), (0, 0, 0, 1))
