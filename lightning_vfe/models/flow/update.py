"""Gated updates of an atom's features by its message, and their derivatives."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_vfe.models.flow.condition import NUM_CONDITIONS, Conditional


class Mixing(NamedTuple):
    """An update at given state points: one affine map of the whole message of an atom.

    Its results are, for every component a and channel c of the features, what is gated and the argument of the gate.
    """

    weight: Tensor  # (A' b, 2 A C) or (W, A' b, 2 A C)
    bias: Tensor  # (W, 1, 2 A C)


class UpdateResult(NamedTuple):
    """New features, raw sigmoid(x) of all components and channels."""

    features: Tensor  # (W, N, A C)
    gates: Tensor
    """sigmoid(x). # (W, N, A C)"""


class GatedUpdate(nn.Module):
    """Channel mixing of a message; then SiLU on the scalars, and a gate 2 sigmoid(scalar) on every channel of l > 0.

    A message may come as m_l^c = scales[l] sum_b filters[l, c, b] m_l^b, by its parts m_l^b, the scales and the
    filters; the mixing then goes from b to the new channels at once.

    The mixing of all components and the arguments of all gates are one matrix product. Its matrix is put together once
    for all atoms and applications: blocks on the diagonal for the components, and columns that read the scalars.

    Args:
        hidden_lmax: largest l of the features.
        num_channels: C.
        num_inputs: b, channels of the message as it comes.
        message_lmax: largest l of the message; features of larger l stay zero.
        scales: of the message; None for ones.  # (degrees,)
    """

    places: Tensor
    factors: Tensor
    zero: Tensor
    zeros: Tensor
    zero_slopes: Tensor

    def __init__(
        self,
        hidden_lmax: int,
        num_channels: int,
        num_inputs: int,
        message_lmax: int,
        scales: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.num_degrees, self.num_components = min(hidden_lmax, message_lmax) + 1, (hidden_lmax + 1) ** 2
        self.num_biases = 2 * self.num_components * num_channels
        scale = 1.0 / math.sqrt(num_channels)
        self.weight = nn.Parameter(scale * torch.randn(hidden_lmax + 1, num_channels, num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels, 1))
        self.gate_weight = nn.Parameter(scale * torch.randn(hidden_lmax, num_channels, num_channels))
        self.gate_bias = nn.Parameter(torch.zeros(hidden_lmax, num_channels, 1))
        # The biases depend on the state point.
        self.bias_slopes = nn.Parameter(torch.zeros(NUM_CONDITIONS, num_channels, 1))
        self.gate_bias_slopes = nn.Parameter(torch.zeros(NUM_CONDITIONS, hidden_lmax, num_channels, 1))
        scales = torch.ones(self.num_degrees) if scales is None else scales
        places, factors = _block_places(hidden_lmax, num_channels, num_inputs, scales)
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("factors", factors, persistent=False)
        no_bias = torch.zeros(NUM_CONDITIONS, (self.num_components - 1) * num_channels)
        self.register_buffer("zero", torch.zeros(()), persistent=False)
        self.register_buffer("zeros", no_bias[0], persistent=False)
        self.register_buffer("zero_slopes", no_bias, persistent=False)

    def biases(self) -> list[Conditional]:
        """The parts of `Mixing.bias`: of the scalars, none for the other components, and of the gates of all of them.

        All of it is given, so that no parameter of a block is left without a gradient, which data-parallel training
        would refuse.
        """
        scalars = (self.bias, self.bias_slopes, 2)
        gates = [
            (self.gate_bias[..., degree - 1, :, :], self.gate_bias_slopes[..., degree - 1, :, :], 2)
            for degree in (math.isqrt(component) for component in range(1, self.num_components))
        ]
        return [scalars, (self.zeros, self.zero_slopes, 1), scalars, *gates]

    def vector_gate_bias(self, biases: Tensor) -> Tensor:
        """That of the gates of vectors, of the values of all `biases`.  # (W, 2 A C) -> (W, C)"""
        by_component: Tensor = biases.unflatten(-1, (2, self.num_components, -1))
        return by_component[..., 1, 1, :]

    def mixing(self, biases: Tensor, filters: Tensor | None = None) -> Mixing:
        """The update at the state points of the walkers.

        Args:
            biases: values of `biases`.  # (W, 2 A C)
            filters: # (..., degrees, C, b)
        """
        weight, gate_weight = self.weight[..., : self.num_degrees, :, :], self.gate_weight[...]
        if filters is not None:
            weight, gate_weight = weight @ filters, gate_weight @ filters[..., :1, :, :]
        numbers = torch.cat([weight.flatten(-3), gate_weight.flatten(-3)], dim=-1)
        matrix = numbers.index_select(-1, self.places).unflatten(-1, self.factors.shape) * self.factors
        return Mixing(matrix, biases.unsqueeze(1))

    def forward(self, message: Tensor, mixing: Mixing) -> UpdateResult:
        """Update features.

        Args:
            message: # (W, N, A' b)
            mixing: from `mixing`.
        """
        weight = mixing.weight.expand(len(message), -1, -1)
        raw, gates = torch.baddbmm(mixing.bias, message, weight).chunk(2, dim=-1)
        gates = torch.sigmoid(gates)
        return UpdateResult(raw * gates, gates)

    def derivatives(self, result: UpdateResult, mixing: Mixing) -> Tensor:
        """Matrices from changes of the message to changes of the features.  # (W, N, A' b, A C)"""
        weight, gate_weight = mixing.weight.unsqueeze(-3).chunk(2, dim=-1)
        gate_slopes = torch.addcmul(result.features, result.features, result.gates, value=-1.0)  # raw sigmoid'
        return torch.addcmul(weight * result.gates.unsqueeze(-2), gate_weight, gate_slopes.unsqueeze(-2))


def _block_places(hidden_lmax: int, num_channels: int, num_inputs: int, scales: Tensor) -> tuple[Tensor, Tensor]:
    """For every entry of `Mixing.weight` the place of its number, and the factor before it.

    The place is in (weights of all degrees of the message, gate weights). The factor is the scale, twice for the
    components of l > 0; zero outside of the blocks.

    Returns:
        # (A' b 2 A C,), (A' b, 2 A C)
    """
    numbers, num_degrees = num_channels * num_inputs, len(scales)
    block = torch.arange(numbers).view(num_channels, num_inputs).T  # (b, C)
    components, inputs = (hidden_lmax + 1) ** 2, num_degrees**2
    places = torch.zeros(inputs, num_inputs, 2, components, num_channels, dtype=torch.long)
    factors = torch.zeros(places.shape)
    for component in range(components):
        degree = math.isqrt(component)
        if component < inputs:
            places[component, :, 0, component] = block + degree * numbers
            factors[component, :, 0, component] = scales[degree] * (2.0 if degree else 1.0)
        # The scalars are their own gate.
        places[0, :, 1, component] = block + (num_degrees + degree - 1 if degree else 0) * numbers
        factors[0, :, 1, component] = scales[0]
    return places.flatten(), factors.flatten(2).flatten(0, 1)
