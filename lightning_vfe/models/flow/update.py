"""Gated updates of an atom's features by its message, and their derivatives."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_vfe.models.flow.condition import NUM_CONDITIONS, conditioned


class Updated(NamedTuple):
    """New features and how they change with the message after channel mixing."""

    features: Tensor  # (W, N, A, C)
    own: Tensor
    """Derivative of every component with respect to its own mixed message. # (W, N, A, C)"""
    gated: Tensor
    """Derivative of the components of l > 0 with respect to the input of their gate. # (W, N, A - 1, C)"""


class GatedUpdate(nn.Module):
    """Channel mixing of a message; then SiLU on the scalars, and a gate 2 sigmoid(scalar) on every channel of l > 0.

    A message may come as m_l^c = sum_b filters[l, c, b] m_l^b, by its parts m_l^b and the filters; the mixing then
    goes from b to the new channels at once.

    Args:
        hidden_lmax: largest l of the features.
        num_channels: C.
    """

    def __init__(self, hidden_lmax: int, num_channels: int) -> None:
        super().__init__()
        self.hidden_lmax = hidden_lmax
        scale = 1.0 / math.sqrt(num_channels)
        self.weight = nn.Parameter(scale * torch.randn(hidden_lmax + 1, num_channels, num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels, 1))
        self.gate_weight = nn.Parameter(scale * torch.randn(hidden_lmax, num_channels, num_channels))
        self.gate_bias = nn.Parameter(torch.zeros(hidden_lmax, num_channels, 1))
        # The biases depend on the state point.
        self.bias_slopes = nn.Parameter(torch.zeros(NUM_CONDITIONS, num_channels, 1))
        self.gate_bias_slopes = nn.Parameter(torch.zeros(NUM_CONDITIONS, hidden_lmax, num_channels, 1))

    def forward(self, message: Tensor, condition: Tensor, filters: Tensor | None = None) -> Updated:
        """Update features.

        Args:
            message: # (W, N, A, C) or, with filters, (W, N, A, b)
            condition: of the state points.  # (W, NUM_CONDITIONS)
            filters: # (..., hidden_lmax + 1, C, b)
        """
        weight, gate_weight = self._mixing(filters)
        scalars, biases = message[:, :, 0], self._biases(condition)
        mixed = scalars @ weight[..., 0, :, :].mT + biases[:, 0].mT
        sigmoid = torch.sigmoid(mixed)
        features, own = [(mixed * sigmoid).unsqueeze(2)], [(sigmoid * (1.0 + mixed * (1.0 - sigmoid))).unsqueeze(2)]
        gated = []
        for degree in range(1, self.hidden_lmax + 1):
            vectors = _mix(message[:, :, degree**2 : (degree + 1) ** 2], weight[..., degree, :, :])
            gate, slope = self._gate(scalars, gate_weight, biases, degree)
            features.append(vectors * gate)
            own.append(gate.expand_as(vectors))
            gated.append(vectors * slope)
        return Updated(torch.cat(features, dim=2), torch.cat(own, dim=2), torch.cat(gated, dim=2))

    def derivatives(self, updated: Updated, filters: Tensor | None = None) -> list[Tensor]:
        """Matrices from changes of the message to changes of the features, for every degree l of the latter.

        Components up to the same l of the message are read: the scalars and those of this degree.

        Returns:
            # (W, N, (2 l + 1) C, (l + 1)^2 b) for l = 0, 1, ..., hidden_lmax
        """
        weight, gate_weight = self._mixing(filters)
        matrices = [updated.own[:, :, 0].unsqueeze(-1) * weight[..., :1, :, :]]
        for degree in range(1, self.hidden_lmax + 1):
            gated = updated.gated[:, :, degree**2 - 1 : (degree + 1) ** 2 - 1].unsqueeze(-1)  # (W, N, M, C, 1)
            own = updated.own[:, :, degree**2].unsqueeze(-1) * weight[..., degree : degree + 1, :, :]
            from_scalars = (gated * gate_weight[..., degree - 1, :, :].unsqueeze(-3).unsqueeze(-3)).unsqueeze(-2)
            unread = gated.new_zeros(*gated.shape[:4], degree**2 - 1, weight.shape[-1])
            same = torch.diag_embed(own.unsqueeze(-1).expand(*own.shape, 2 * degree + 1), dim1=2, dim2=4)
            matrices.append(torch.cat([from_scalars, unread, same], dim=-2).flatten(4).flatten(2, 3))
        return matrices

    def read(
        self, message: Tensor, readout: Tensor, condition: Tensor, filters: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Only the vectors of the features, mixed into one for every atom, and the derivative of that.

        Args:
            message: of l = 0 and 1 at least; as in `forward`.
            readout: weights of the channels.  # (W, 1, C)
            condition: as in `forward`.
            filters: as in `forward`.

        Returns:
            d_i  # (W, N, 3), and the weights that give d d_i from a change of the message: [b, 0] for its vectors, and
            [b, v] from its scalars to the component v  # (W, N, b, 4)
        """
        weight, gate_weight = self._mixing(filters)
        gate, slope = self._gate(message[:, :, 0], gate_weight, self._biases(condition), 1)
        vectors = _mix(message[:, :, 1:4], weight[..., 1, :, :])
        opened = readout * gate.squeeze(2)  # (W, N, C)
        moved = (vectors @ opened.unsqueeze(-1)).squeeze(-1)
        by_scalars = _mix(vectors * (readout.unsqueeze(-2) * slope), gate_weight[..., 0, :, :].mT)
        by_vectors = opened @ weight[..., 1, :, :]
        return moved, torch.cat([by_vectors.unsqueeze(2), by_scalars], dim=2).mT

    def _gate(self, scalars: Tensor, gate_weight: Tensor, biases: Tensor, degree: int) -> tuple[Tensor, Tensor]:
        """2 sigmoid, which is 1 at zero, and its derivative.  # (W, N, 1, C)"""
        mixed = scalars @ gate_weight[..., degree - 1, :, :].mT + biases[:, degree].mT
        sigmoid = torch.sigmoid(mixed.unsqueeze(2))
        return 2.0 * sigmoid, 2.0 * sigmoid * (1.0 - sigmoid)

    def _biases(self, condition: Tensor) -> Tensor:
        """Biases of the scalars and of all gates, taken together so that `read` leaves no parameter without a gradient,
        which data-parallel training would refuse.  # (W, hidden_lmax + 1, C, 1)"""
        scalars = conditioned(self.bias, self.bias_slopes, condition, ndim=2)
        gates = conditioned(self.gate_bias, self.gate_bias_slopes, condition, ndim=3)
        return torch.cat([scalars.unsqueeze(-3), gates], dim=-3)

    def _mixing(self, filters: Tensor | None) -> tuple[Tensor, Tensor]:
        """Weights from the message, or from its parts, to the new channels and to their gates."""
        if filters is None:
            return self.weight, self.gate_weight
        return self.weight @ filters, self.gate_weight @ filters[..., :1, :, :]


def _mix(features: Tensor, weight: Tensor) -> Tensor:
    """Channel mixing.  # (W, N, M, C), (C', C) or (W, C', C) -> (W, N, M, C')"""
    return (features.flatten(1, 2) @ weight.mT).unflatten(1, features.shape[1:3])
