"""One residual block of the flow: x -> x + Delta(x)."""

from __future__ import annotations

from typing import cast

import torch
from e3nn import o3
from torch import Tensor, nn

from lightning_vfe.models.flow.condition import NUM_CONDITIONS, conditioned
from lightning_vfe.models.flow.edge_basis import EdgeBasis
from lightning_vfe.models.flow.first_message import FirstMessage
from lightning_vfe.models.flow.jet import Jet
from lightning_vfe.models.flow.last_message import LastMessage
from lightning_vfe.models.flow.message import Message
from lightning_vfe.models.flow.update import GatedUpdate
from lightning_vfe.physics.cell import PeriodicCell

# Displacements per unit of the readout, in units of rs. It only sets how far one optimizer step moves atoms: with Adam
# a learning rate of 1e-3 to 1e-2 then neither crawls nor lets neighbouring atoms overtake each other.
DISPLACEMENT_SCALE = 0.25


class ResidualBlock(nn.Module):
    """Delta(x) of one block: a message-passing network over all images within a cutoff, and its Jacobian.

    Atoms start alike (one constant scalar per channel); each layer adds a gated update of the message to the features;
    the last vectors (1o) are mixed into one displacement per atom. The mixing starts at zero: Delta = 0.

    The Jacobian is built from both ends. The first message holds no parameters inside its sums, so that one sparse
    Jacobian of b functions per component stands for all channels. Layers between carry the Jacobian of all features.
    The last one is read from the side of the three displacements, which takes the sums over channels before those over
    neighbours. A dense product over (neighbour, component, channel) joins the two.

    Args:
        cell: the periodic cell in units of rs, as are all lengths here.
        num_layers: message layers.
        num_channels: channels of each irrep.
        hidden_lmax: features have l = 0 to hidden_lmax, with parity (-1)^l.
        edge_lmax: edges have l = 0 to edge_lmax.
        num_radial: radial functions of the edges.
        cutoff: range of the messages.
    """

    def __init__(
        self,
        cell: PeriodicCell,
        num_layers: int,
        num_channels: int,
        hidden_lmax: int,
        edge_lmax: int,
        num_radial: int,
        cutoff: float,
    ) -> None:
        super().__init__()
        self.basis = EdgeBasis(cell, max(edge_lmax, hidden_lmax), num_radial, cutoff)
        # A uniform density has this many images within the cutoff, an atom's own ones included.
        mean_neighbours = cutoff**3
        hidden, edges = (_natural_irreps(lmax) for lmax in (hidden_lmax, edge_lmax))
        sizes = (num_channels, num_radial, mean_neighbours)
        num_angular = (self.basis.lmax + 1) ** 2
        self.messages = nn.ModuleList([FirstMessage(hidden, edges, *sizes)])
        for layer in range(1, num_layers):
            last = layer == num_layers - 1
            kind, outputs = (LastMessage, 1) if last else (Message, hidden_lmax)
            self.messages.append(kind(hidden, hidden, edges, *sizes, num_angular, outputs))
        self.updates = nn.ModuleList(GatedUpdate(hidden_lmax, num_channels) for _ in range(num_layers))
        self.readout = nn.Parameter(torch.zeros(1, num_channels))
        self.readout_slopes = nn.Parameter(torch.zeros(NUM_CONDITIONS, 1, num_channels))

    def forward(self, positions: Tensor, condition: Tensor, with_jacobian: bool) -> Jet:
        """Displacements and, where wanted, their Jacobian.

        Args:
            positions: # (W, N, 3)
            condition: of the state points.  # (W, NUM_CONDITIONS)
            with_jacobian: also carry the Jacobian.

        Returns:
            Delta  # (W, N, 3), and d Delta / d x  # (W, N, 3, 3 N)
        """
        functions, neighbours = self.basis(positions, with_jacobian)
        first, messages = cast(FirstMessage, self.messages[0]), cast(list[LastMessage], list(self.messages)[1:])
        updates = cast(list[GatedUpdate], list(self.updates))
        readout = DISPLACEMENT_SCALE * conditioned(self.readout, self.readout_slopes, condition, ndim=2)  # (W, 1, C)
        filters = first.filters()
        message = first(functions)
        slopes = first.jacobian(functions, neighbours) if with_jacobian else None
        if not messages:
            moved, reader = updates[0].read(message, readout, condition, filters)
            return Jet(moved, None if slopes is None else _read(slopes, reader))
        updated = updates[0](message, condition, filters)
        features = updated.features
        jacobians = None if slopes is None else _chained(updates[0].derivatives(updated, filters), slopes)
        for layer, update in zip(messages[:-1], updates[1:-1], strict=True):
            message, parts = layer(features, functions, neighbours)
            updated = update(message, condition)
            features = features + updated.features
            if jacobians is not None:
                slopes = layer.jacobian(parts, functions, neighbours, jacobians)
                changes = _chained(update.derivatives(updated), slopes)
                jacobians = [jacobian + change for jacobian, change in zip(jacobians, changes, strict=True)]
        message, parts = messages[-1](features, functions, neighbours)
        moved, reader = updates[-1].read(message, readout, condition)
        moved = moved + (features[:, :, 1:4] @ readout.unsqueeze(-3).mT).squeeze(-1)
        if jacobians is None:
            return Jet(moved)
        carried, edges = messages[-1].read_jacobian(parts, functions, neighbours, reader, readout)
        jacobian = edges.permute(0, 1, 4, 2, 3).reshape(len(edges), *[3 * positions.shape[1]] * 2)
        for degree, matrix in zip(messages[-1].degrees, carried, strict=True):
            jacobian = jacobian + matrix.flatten(2) @ jacobians[degree].flatten(1, 2)
        return Jet(moved, jacobian.unflatten(1, (-1, 3)))


def _natural_irreps(lmax: int) -> o3.Irreps:
    """l = 0 to lmax with parity (-1)^l, one of each."""
    return o3.Irreps([(1, (degree, (-1) ** degree)) for degree in range(lmax + 1)])


def _chained(matrices: list[Tensor], slopes: Tensor) -> list[Tensor]:
    """Jacobians of features from those of messages.  # (W, N, M C, A b) each, (W, N, A b, 3 N) -> (W, N, M C, 3 N)"""
    return [matrix @ slopes[:, :, : matrix.shape[-1]] for matrix in matrices]


def _read(slopes: Tensor, reader: Tensor) -> Tensor:
    """`GatedUpdate.read` applied to the Jacobian of its message.  # (W, N, A b, 3 N), (W, N, b, 4) -> (W, N, 3, 3 N)"""
    slopes = slopes.unflatten(2, (-1, reader.shape[2]))
    by_vectors = (reader[..., :1].mT.unsqueeze(2) @ slopes[:, :, 1:4]).squeeze(3)
    return by_vectors + reader[..., 1:].mT @ slopes[:, :, 0]
