"""The last message of a network: only three numbers of what it gives are read for every atom."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_vfe.models.flow.edge_basis import PairFunctions
from lightning_vfe.models.flow.edges import jacobian_of_sum
from lightning_vfe.models.flow.message import Message
from lightning_vfe.models.flow.reading import Reading


class LastMessage(Message):
    """A `Message` whose Jacobian is taken from the side of its reading. These are 3 N rows instead of N O C.

    Args:
        as for `Message`, with largest_output = 1.
    """

    vectors: Tensor

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.register_buffer("vectors", torch.eye(3).unsqueeze(-1), persistent=False)

    def read_jacobian(
        self,
        reading: Reading,
        own: Tensor,
        functions: PairFunctions,
        sent: Tensor,
        matrices: Tensor,
        jacobian: Tensor,
        same: Tensor,
    ) -> Tensor:
        """Derivatives of d_i, which also reads the atom's own features: own[v] . h_i.

        Args:
            reading: of the message.
            own: # (W, 3, A C)
            functions: of all pairs, with gradients.
            sent: Q_j, from `sent`.
            matrices: from `matrices`.
            jacobian: d h_j / d x.  # (W, N, A C, 3 N)
            same: one for j = i.  # (N_i, N_j)

        Returns:
            # (W, N, 3, N, 3)
        """
        assert functions.gradients is not None
        assert reading.by_scalars is not None
        walkers, atoms, _, channels = reading.by_scalars.shape
        outputs, components = matrices.shape[-3:-1]
        by_vectors = reading.by_vectors[:, :, None, None]
        # Through the features of the senders, and through the atom's own.
        passed = torch.matmul(functions.values.flatten(1, 2), matrices.flatten(-3))
        passed = passed.view(walkers, atoms, atoms, outputs, components, channels)
        scalars, vectors = passed.split([1, 3], dim=3)
        read = torch.addcmul(vectors * by_vectors.unsqueeze(3), scalars, reading.by_scalars[:, :, None, :, None])
        read = read.transpose(2, 3).reshape(walkers, 3 * atoms, -1)  # (W, N_i 3, N_j A C)
        moved = torch.matmul(own.unsqueeze(1), jacobian).flatten(1, 2)
        moved = torch.baddbmm(moved, read, jacobian.flatten(1, 2)).view(walkers, atoms, 3, atoms, 3)
        # Through the edges, with the features fixed.
        rows = torch.cat([reading.by_scalars.unsqueeze(3), by_vectors * self.vectors], dim=3)  # (W, N, 3, O, C)
        slopes = torch.bmm(rows.view(walkers, 3 * atoms, -1), sent.view(walkers, -1, outputs * channels).mT)
        slopes = slopes.view(walkers, atoms, 3, atoms, -1).transpose(2, 3).reshape(-1, 3, sent.shape[2])
        slopes = torch.bmm(slopes, functions.gradients.flatten(0, 2)).view(walkers, atoms, atoms, 3, 3)
        return moved + jacobian_of_sum(slopes, same).transpose(2, 3)
