"""The streams of the electron density by the kernels: those of density/streams.py with F features instead of F + 1."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from lightning_vfe.models.wavefunction.density.fused.functions import FirstPairLayer, PairLayer
from lightning_vfe.models.wavefunction.density.fused.state_layer import StateLayer
from lightning_vfe.models.wavefunction.density.pairs import PairConstants, electron_angles
from lightning_vfe.models.wavefunction.density.streams import (
    FirstLayer,
    Layer,
    StreamConstants,
    Streams,
    first_states,
    messages_of_protons,
    senders_of,
)


def fused_streams(pairs: PairConstants, constants: StreamConstants, positions: Tensor, unit_length: float) -> Streams:
    """All layers, for electrons (W, B, N, 3) in units of rs, at any of their images."""
    angles = electron_angles(pairs, pairs.origin[1], positions, unit_length)  # (3, N, w)
    layers, weights, senders = constants.others, constants.first.pairs, constants.first.senders
    first = cast(Any, FirstPairLayer.apply)  # torch has no types
    other, of_states = cast(Any, PairLayer.apply), cast(Any, StateLayer.apply)
    new, messages, to_protons, cusps = first(angles, pairs, weights, senders, not layers)
    states = first_states(_first_without_ones(constants.first), messages, to_protons)
    for number, each in enumerate(layers, start=1):
        layer = _without_ones(each)
        senders = senders_of(layer, states)
        new, messages, to_protons = other(new, senders, layer.pairs, number == len(layers))
        heard = to_protons
        if layer.proton_pairs is not None:
            from_protons = messages_of_protons(senders[2:], layer.proton_pairs, len(positions))
            heard = torch.cat([to_protons.view(from_protons.shape), from_protons], dim=1).flatten(-2)
        states = of_states(states, messages, heard, layer)
    return Streams(states[:2], torch.unbind(new), angles, cusps)


def _first_without_ones(layer: FirstLayer) -> FirstLayer:
    to_protons = None if layer.to_protons is None else layer.to_protons[..., :-1]
    return layer._replace(to_electrons=_cut(layer.to_electrons, 4), to_protons=to_protons)


def _without_ones(layer: Layer) -> Layer:
    """The weights of a layer except for those of the feature that is always one: its messages have weight zero."""
    to_protons, proton_pairs = layer.to_protons, layer.proton_pairs
    if to_protons is not None and proton_pairs is not None:
        to_protons = _cut(to_protons, 2)
        width = layer.gates.shape[1]
        proton_pairs = proton_pairs[: len(proton_pairs) // width * (width - 1)]
    gates, to_electrons = layer.gates[:, :-1], _cut(layer.to_electrons, 4)
    return layer._replace(gates=gates, to_electrons=to_electrons, to_protons=to_protons, proton_pairs=proton_pairs)


def _cut(weights: Tensor, count: int) -> Tensor:
    """Weights of `count` messages without those of their last features."""
    cut: Tensor = weights.unflatten(-1, (count, -1))[..., :-1].flatten(-2)
    return cut
