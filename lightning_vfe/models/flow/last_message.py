"""The last message of a network: only three numbers of what it gives are read for every atom."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_vfe.models.flow.edge_basis import PairFunctions
from lightning_vfe.models.flow.edges import jacobian_of_sum
from lightning_vfe.models.flow.message import Message
from lightning_vfe.models.flow.readout import Readout


class LastMessage(Message):
    """A `Message` whose Jacobian is taken from the side of its readout. These are 3 N rows instead of N O C.

    Args:
        as for `Message`, with largest_output = 1.
    """

    vectors: Tensor

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.register_buffer("vectors", torch.eye(3).unsqueeze(-1), persistent=False)

    def readout_jacobian(
        self,
        readout: Readout,
        own: Tensor,
        functions: PairFunctions,
        senders: Tensor,
        matrices: Tensor,
        jacobian: Tensor,
        same: Tensor,
    ) -> Tensor:
        """Derivatives of d_i, to which the atom's own features add own[v] . h_i.

        Args:
            readout: of the message.
            own: # (W, 3, A C)
            functions: of all pairs, with gradients.
            senders: Q_j, from `from_senders`.
            matrices: from `matrices`.
            jacobian: d h_j / d x.  # (W, N, A C, 3 N)
            same: one for j = i.  # (N_i, N_j)

        Returns:
            # (W, N, 3, N, 3)
        """
        assert functions.gradients is not None
        assert readout.by_scalars is not None
        walkers, atoms, _, channels = readout.by_scalars.shape
        outputs, components = matrices.shape[-3:-1]
        by_vectors = readout.by_vectors[:, :, None, None]
        # Through the features of the senders, and through the atom's own.
        pairs = torch.matmul(functions.values.flatten(1, 2), matrices.flatten(-3))
        pairs = pairs.view(walkers, atoms, atoms, outputs, components, channels)
        scalars, vectors = pairs.split([1, 3], dim=3)
        rows = torch.addcmul(vectors * by_vectors.unsqueeze(3), scalars, readout.by_scalars[:, :, None, :, None])
        rows = rows.transpose(2, 3).reshape(walkers, 3 * atoms, -1)  # (W, N_i 3, N_j A C)
        by_features = torch.matmul(own.unsqueeze(1), jacobian).flatten(1, 2)
        by_features = torch.baddbmm(by_features, rows, jacobian.flatten(1, 2)).view(walkers, atoms, 3, atoms, 3)
        # Through the edges, with the features fixed.
        rows = torch.cat([readout.by_scalars.unsqueeze(3), by_vectors * self.vectors], dim=3)  # (W, N, 3, O, C)
        by_functions = torch.bmm(rows.view(walkers, 3 * atoms, -1), senders.view(walkers, -1, outputs * channels).mT)
        by_functions = by_functions.view(walkers, atoms, 3, atoms, -1).transpose(2, 3).reshape(-1, 3, senders.shape[2])
        by_edges = torch.bmm(by_functions, functions.gradients.flatten(0, 2).mT).view(walkers, atoms, atoms, 3, 3)
        return by_features + jacobian_of_sum(by_edges, same).transpose(2, 3)
