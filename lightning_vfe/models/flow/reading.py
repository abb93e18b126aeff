"""What is read from the last update of a network: one displacement for every atom."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_vfe.models.flow.update import GatedUpdate


class Reading(NamedTuple):
    """A displacement d_i[v], v = x, y, z, and how it changes with the message m that it was read from:

    d d_i[v] = sum_b by_vectors[b] d m_i^b[v] + by_scalars[v, b] d m_i^b[0].
    """

    displacement: Tensor  # (W, N, 3)
    by_vectors: Tensor  # (W, N, b)
    by_scalars: Tensor | None = None
    """Where asked for. # (W, N, 3, b)"""


class Reader(NamedTuple):
    """Only the vectors of the features that a `GatedUpdate` would give, mixed into one vector for every atom."""

    gate_weight: Tensor
    """From the scalars of the message to the arguments of the gates. # (C, b) or (W, C, b)"""
    gate_bias: Tensor  # (W, 1, C)
    weight: Tensor
    """From the vectors of the message to those that are gated and added up, weights of the readout included.
    # (W, C, b)"""

    def read(self, message: Tensor, onto: Tensor | None, with_derivatives: bool) -> Reading:
        """Displacements.

        Args:
            message: of l = 0 and 1 at least.  # (W, N, components, b)
            onto: something to add to the displacement.  # (W, N, 3)
            with_derivatives: also give `Reading.by_scalars`.
        """
        walkers, atoms = message.shape[:2]
        gate_weight = self.gate_weight.expand(walkers, -1, -1)
        opened = torch.sigmoid(torch.baddbmm(self.gate_bias, message[:, :, 0], gate_weight.mT))
        by_vectors = torch.bmm(opened, self.weight)
        vectors, columns = message[:, :, 1:4].flatten(0, 1), by_vectors.view(walkers * atoms, -1, 1)
        if onto is None:
            displacement = torch.bmm(vectors, columns)
        else:
            displacement = torch.baddbmm(onto.view(-1, 3, 1), vectors, columns)
        displacement = displacement.view(walkers, atoms, 3)
        if not with_derivatives:
            return Reading(displacement, by_vectors)
        slope = torch.addcmul(opened, opened, opened, value=-1.0)
        gated = (message.flatten(1, 2) @ self.weight.mT).unflatten(1, (atoms, -1))[:, :, 1:4] * slope.unsqueeze(2)
        by_scalars = (gated.flatten(1, 2) @ gate_weight).view(walkers, atoms, 3, -1)
        return Reading(displacement, by_vectors, by_scalars)


def reader(update: GatedUpdate, biases: Tensor, scale: float, readout: Tensor, filters: Tensor | None = None) -> Reader:
    """The reader that takes the place of an update.

    Args:
        update: whose vectors are read.
        biases: of the update at the state points.  # (W, C + hidden_lmax C + 1)
        scale: displacement per unit of the readout.
        readout: weights of the channels.  # (W, C)
        filters: as in `GatedUpdate.mixing`.
    """
    channels = readout.shape[-1]
    weight, gate_weight = update.weight[..., 1, :, :], update.gate_weight[..., 0, :, :]
    if filters is not None:
        weight, gate_weight = weight @ filters[..., 1, :, :], gate_weight @ filters[..., 0, :, :]
    gate_bias = biases[:, channels : 2 * channels].unsqueeze(1)
    # Vectors are opened by 2 sigmoid.
    return Reader(gate_weight, gate_bias, weight * (2.0 * scale * readout).unsqueeze(-1))
