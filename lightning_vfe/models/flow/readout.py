"""What is read from the last update of a network: one displacement for every atom."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_vfe.models.flow.update import GatedUpdate


class Readout(NamedTuple):
    """Positions x_i + d_i[v], v = x, y, z, and how d changes with the message m that it was read from:

    d d_i[v] = sum_b by_vectors[b] d m_i^b[v] + by_scalars[v, b] d m_i^b[0].
    """

    image: Tensor  # (W, N, 3)
    by_vectors: Tensor  # (W, N, b)
    by_scalars: Tensor | None = None
    """Where asked for. # (W, N, 3, b)"""


class ReadoutWeights(NamedTuple):
    """Only the vectors of the features that a `GatedUpdate` would give, mixed into one vector for every atom."""

    gate_weight: Tensor
    """From the scalars of the message to the arguments of the gates. # (C, b) or (W, C, b)"""
    gate_bias: Tensor  # (W, 1, C)
    weight: Tensor
    """From the vectors of the message to those that are gated and added up, weights of the readout included.
    # (W, C, b)"""

    def readout(self, message: Tensor, positions: Tensor, with_derivatives: bool) -> Readout:
        """Add the displacements to positions.

        Args:
            message: of l = 0 and 1 at least.  # (W, N, components, b)
            positions: # (W, N, 3)
            with_derivatives: also give `Readout.by_scalars`.
        """
        walkers, atoms = message.shape[:2]
        gate_weight = self.gate_weight.expand(walkers, -1, -1)
        gates = torch.sigmoid(torch.baddbmm(self.gate_bias, message[:, :, 0], gate_weight.mT))
        by_vectors = torch.bmm(gates, self.weight)
        vectors, columns = message[:, :, 1:4].flatten(0, 1), by_vectors.view(walkers * atoms, -1, 1)
        image = torch.baddbmm(positions.reshape(-1, 3, 1), vectors, columns).view(walkers, atoms, 3)
        if not with_derivatives:
            return Readout(image, by_vectors)
        gate_slopes = torch.addcmul(gates, gates, gates, value=-1.0)
        mixed = (message.flatten(1, 2) @ self.weight.mT).unflatten(1, (atoms, -1))[:, :, 1:4] * gate_slopes.unsqueeze(2)
        by_scalars = (mixed.flatten(1, 2) @ gate_weight).view(walkers, atoms, 3, -1)
        return Readout(image, by_vectors, by_scalars)


def readout_weights(
    update: GatedUpdate, biases: Tensor, scale: float, readout: Tensor, filters: Tensor | None = None
) -> ReadoutWeights:
    """What takes the place of the last update.

    Args:
        update: whose vectors are read.
        biases: of the update at the state points.  # (W, 2 A C)
        scale: displacement per unit of the readout.
        readout: weights of the channels.  # (W, C)
        filters: as in `GatedUpdate.mixing`.
    """
    weight, gate_weight = update.weight[..., 1, :, :], update.gate_weight[..., 0, :, :]
    if filters is not None:
        weight, gate_weight = weight @ filters[..., 1, :, :], gate_weight @ filters[..., 0, :, :]
    # The gate of a vector is 2 sigmoid.
    weight = torch.addcmul(update.zero, weight, readout.unsqueeze(-1), value=2.0 * scale)
    return ReadoutWeights(gate_weight, update.vector_gate_bias(biases).unsqueeze(1), weight)
