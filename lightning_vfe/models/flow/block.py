"""One residual block of the flow: x -> x + Delta(x)."""

from __future__ import annotations

import math

import torch
from e3nn import o3
from torch import Tensor, nn

from lightning_vfe.models.flow.edge_basis import EdgeBasis
from lightning_vfe.models.flow.jet import Jet, concatenated
from lightning_vfe.models.flow.message import Message
from lightning_vfe.physics.cell import PeriodicCell

# Displacements per unit of the readout, in units of rs. It only sets how far one optimizer step moves atoms: with Adam
# a learning rate of 1e-3 to 1e-2 then neither crawls nor lets neighbouring atoms overtake each other.
DISPLACEMENT_SCALE = 0.25


class GatedUpdate(nn.Module):
    """Channel mixing of a message; then SiLU on the scalars, and a gate 2 sigmoid(scalar) on every channel of l > 0.

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

    def forward(self, message: Jet) -> Jet:
        """# (W, A, C, N) -> (W, A, C, N)"""
        scalars = message.components(slice(0, 1))
        gates = scalars.mixed(self.gate_weight, self.gate_bias).open_gate()  # (W, hidden_lmax, C, N)
        parts = [scalars.mixed(self.weight[..., :1, :, :], self.bias.unsqueeze(-3)).silu()]
        for degree in range(1, self.hidden_lmax + 1):
            weight = self.weight[..., degree : degree + 1, :, :]
            vectors = message.components(slice(degree**2, (degree + 1) ** 2)).mixed(weight)
            parts.append(vectors.times(gates.components(slice(degree - 1, degree))))
        return concatenated(parts)


class ResidualBlock(nn.Module):
    """Delta(x) of one block: a message-passing network over all images within a cutoff, and its Jacobian.

    Atoms start alike (one constant scalar per channel); each layer adds a gated update of the message to the features;
    the last vectors (1o) are mixed into one displacement per atom. The mixing starts at zero: Delta = 0.

    Args:
        cell: the periodic cell.
        num_layers: message layers.
        num_channels: channels of each irrep.
        hidden_lmax: features have l = 0 to hidden_lmax, with parity (-1)^l.
        edge_lmax: edges have l = 0 to edge_lmax.
        num_radial: radial functions of the edges.
        cutoff: in bohr.
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
        mean_neighbours = (cutoff / cell.rs) ** 3
        hidden = o3.Irreps([(1, (degree, (-1) ** degree)) for degree in range(hidden_lmax + 1)])
        inputs = [o3.Irreps("1x0e")] + [hidden] * (num_layers - 1)
        self.messages = nn.ModuleList(
            Message(irreps, hidden, self.basis.irreps, num_channels, num_radial, mean_neighbours) for irreps in inputs
        )
        self.updates = nn.ModuleList(GatedUpdate(hidden_lmax, num_channels) for _ in range(num_layers))
        self.readout = nn.Parameter(torch.zeros(1, num_channels))
        self.scale = DISPLACEMENT_SCALE * cell.rs

    def forward(self, positions: Tensor, with_jacobian: bool) -> Jet:
        """Displacements and, where wanted, their Jacobian.

        Args:
            positions: bohr.  # (W, N, 3)
            with_jacobian: also carry the Jacobian.

        Returns:
            Delta in bohr  # (W, N, 3), and d Delta / d x  # (W, N, 3, 3 N)
        """
        basis = self.basis(positions, with_jacobian)
        features = Jet(positions.new_ones(1, 1, self.readout.shape[-1], 1))
        for layer, (message, update) in enumerate(zip(self.messages, self.updates, strict=True)):
            change = update(message(features, basis))
            features = change if layer == 0 else features.plus(change)
        return features.components(slice(1, 4)).mixed(self.scale * self.readout.unsqueeze(-3)).per_atom()
