"""One residual block of the flow: x -> x + Delta(x)."""

from __future__ import annotations

import functools
from typing import NamedTuple, cast

import torch
from e3nn import o3
from torch import Tensor, nn
from typing_extensions import override

from lightning_vfe.models.flow.condition import NUM_CONDITIONS, Conditional
from lightning_vfe.models.flow.edge_basis import EdgeBasis
from lightning_vfe.models.flow.last_message import LastMessage
from lightning_vfe.models.flow.message import FirstMessage, Message
from lightning_vfe.models.flow.readout import Readout, ReadoutWeights, readout_weights
from lightning_vfe.models.flow.step import FlowBlock, Step, StepResult
from lightning_vfe.models.flow.update import GatedUpdate, Mixing
from lightning_vfe.physics.cell import PeriodicCell

# Displacements per unit of the readout, in units of rs. It only sets how far one optimizer step moves atoms: with Adam
# a learning rate of 1e-3 to 1e-2 then neither crawls nor lets neighbouring atoms overtake each other.
DISPLACEMENT_SCALE = 0.25


class NetworkWeights(NamedTuple):
    """What the network needs of its parameters and of the state points, put together once for several positions."""

    first: Mixing | None
    """The first update; None where there is only one, which is read at once."""
    between: list[tuple[Tensor, Mixing]]
    """Weights of the message and update of the layers between the first and the last."""
    last: Tensor | None
    """Weights of the last message, where it is not the first one."""
    readout: ReadoutWeights
    own: Tensor
    """Weights of an atom's own features in its displacement. # (W, 3, A C)"""


class ResidualBlock(FlowBlock):
    """Delta(x) of one block: a message-passing network over all images within a cutoff, and its Jacobian.

    Atoms start alike (one constant scalar per channel); each layer adds a gated update of the message to the features;
    the last vectors (1o) are mixed into one displacement per atom. The mixing starts at zero: Delta = 0.

    Edges of a pair of atoms are summed over images before anything else; all that follows are sums over pairs, as
    products of a few large matrices. The number of operations depends on the number of layers alone.

    The Jacobian is built from both ends. The first message holds no parameters inside its sums, so that one Jacobian of
    b functions per component stands for all channels. Layers between carry the Jacobian of all features. The last one
    is read from the side of the three displacements, which takes the sums over channels before those over neighbours.
    A dense product over (neighbour, component, channel) joins the two.

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
        self.basis = EdgeBasis(cell, edge_lmax, num_radial, cutoff)
        # A uniform density has this many images within the cutoff, an atom's own ones included.
        mean_neighbours = cutoff**3
        hidden, edges = (_natural_irreps(lmax) for lmax in (hidden_lmax, edge_lmax))
        sizes = (num_channels, num_radial, mean_neighbours)
        self.messages = nn.ModuleList([FirstMessage(hidden, edges, *sizes)])
        for layer in range(1, num_layers):
            last = layer == num_layers - 1
            kind, outputs = (LastMessage, 1) if last else (Message, hidden_lmax)
            self.messages.append(kind(hidden, hidden, edges, *sizes, outputs))
        self.updates = nn.ModuleList(
            GatedUpdate(hidden_lmax, num_channels, num_channels, hidden_lmax)
            if layer
            else GatedUpdate(
                hidden_lmax, num_channels, num_radial, edge_lmax, cast(FirstMessage, self.messages[0]).scales
            )
            for layer in range(num_layers)
        )
        self.length, self.scale = cell.length, DISPLACEMENT_SCALE / cell.length
        self.readout = nn.Parameter(torch.zeros(1, num_channels))
        self.readout_slopes = nn.Parameter(torch.zeros(NUM_CONDITIONS, 1, num_channels))
        own = torch.zeros(3, (hidden_lmax + 1) ** 2, 1)
        own[:, 1:4, 0] = self.scale * torch.eye(3)
        self.register_buffer("own_vectors", own, persistent=False)

    @override
    def conditional(self) -> list[Conditional]:
        """See `FlowBlock.conditional`."""
        biases = [each for update in cast(list[GatedUpdate], list(self.updates)) for each in update.biases()]
        return [(self.readout, self.readout_slopes, 2), *biases]

    @override
    def prepared(self, values: Tensor) -> Step:
        """The step for several positions, in units of L.

        Args:
            values: of `conditional` at the state points of the walkers.  # (W, P)
        """
        first, messages = cast(FirstMessage, self.messages[0]), cast(list[Message], list(self.messages)[1:])
        updates = cast(list[GatedUpdate], list(self.updates))
        sizes = [self.readout.shape[-1], *(update.num_biases for update in updates)]
        readout, *biases = values.split(sizes, dim=-1)
        filters = first.filters()
        layers = zip(messages[:-1], updates[1:-1], biases[1:-1], strict=True)
        scaled_filters = None if messages else first.scales[:, None, None] * filters
        weights = NetworkWeights(
            first=updates[0].mixing(biases[0], filters) if messages else None,
            between=[(message.weights(), update.mixing(bias)) for message, update, bias in layers],
            last=messages[-1].weights() if messages else None,
            readout=readout_weights(updates[-1], biases[-1], self.scale, readout, scaled_filters),
            own=(self.own_vectors * readout[:, None, None]).flatten(2),
        )
        return functools.partial(self._step, weights)

    def _step(self, weights: NetworkWeights, positions: Tensor, with_jacobian: bool) -> StepResult:
        """`forward` with the parameters put together, in units of L."""
        functions, same = self.basis(positions, with_jacobian), self.basis.edges.same
        first, messages = cast(FirstMessage, self.messages[0]), cast(list[Message], list(self.messages)[1:])
        updates = cast(list[GatedUpdate], list(self.updates))
        message = first(functions)
        slopes = first.jacobian(functions, same) if with_jacobian else None
        if weights.first is None or weights.last is None:
            message = message.unflatten(-1, (-1, weights.readout.weight.shape[-1]))
            readout = weights.readout.readout(message, positions, with_jacobian)
            return StepResult(readout.image, None if slopes is None else _readout_jacobian(slopes, readout))
        result = updates[0](message, weights.first)
        features, jacobian = result.features, None
        if slopes is not None:
            jacobian = updates[0].derivatives(result, weights.first).mT @ slopes  # (W, N, A C, 3 N)
        for layer, update, (own, mixing) in zip(messages[:-1], updates[1:-1], weights.between, strict=True):
            result = update(layer(functions, layer.from_senders(features, own)), mixing)
            if jacobian is not None:
                slopes = layer.jacobian(features, functions, own, jacobian, same)
                jacobian = jacobian + update.derivatives(result, mixing).mT @ slopes
            features = features + result.features
        last = cast(LastMessage, messages[-1])
        senders = last.from_senders(features, weights.last)
        message = last(functions, senders).unflatten(-1, (last.num_outputs, -1))
        by_own = torch.baddbmm(positions, features, weights.own.mT)
        readout = weights.readout.readout(message, by_own, with_jacobian)
        if jacobian is None:
            return StepResult(readout.image)
        matrices = last.matrices(weights.last)
        jacobian = last.readout_jacobian(readout, weights.own, functions, senders, matrices, jacobian, same)
        return StepResult(readout.image, jacobian.flatten(3))


def _natural_irreps(lmax: int) -> o3.Irreps:
    """l = 0 to lmax with parity (-1)^l, one of each."""
    return o3.Irreps([(1, (degree, (-1) ** degree)) for degree in range(lmax + 1)])


def _readout_jacobian(slopes: Tensor, readout: Readout) -> Tensor:
    """The derivatives of what was read from a message.  # (W, N, A b, 3 N) -> (W, N, 3, 3 N)"""
    assert readout.by_scalars is not None
    slopes = slopes.unflatten(2, (-1, readout.by_vectors.shape[-1]))  # (W, N, A, b, 3 N)
    by_vectors = (readout.by_vectors[:, :, None, None] @ slopes[:, :, 1:4]).squeeze(3)
    return by_vectors + readout.by_scalars @ slopes[:, :, 0]
