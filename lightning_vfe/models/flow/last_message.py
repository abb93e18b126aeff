"""The last message of a network: only three numbers of what it gives are read for every atom."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_vfe.models.flow.edge_basis import EdgeFunctions
from lightning_vfe.models.flow.edges import Neighbours, jacobian_of_sum
from lightning_vfe.models.flow.message import Message, Sent


class LastMessage(Message):
    """A `Message` whose Jacobian is taken from the side of its outputs, which are one vector for every atom:

        d d_i[v] = sum_c reader[c, 0] d m_i^c[v] + reader[c, v] d m_i^c[0] + own[c] d h_i^c[v],   v = x, y, z.

    These are 3 N rows instead of N O C. The sums over channels are taken for every edge.

    Args:
        as for `Message`, with largest_output = 1.
    """

    def read_jacobian(
        self, parts: list[Sent], functions: EdgeFunctions, neighbours: Neighbours, reader: Tensor, own: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """Derivatives of d_i.

        Args:
            parts: from `forward`.
            functions: of all edges, with gradients.
            neighbours: the edges.
            reader: weights of the vectors, and of the scalars for each direction.  # (W, N, C, 4)
            own: weights of the atom's own vectors.  # (1, C) or (W, 1, C)

        Returns:
            d d_i / d h_j for each of `degrees`  # (W, 3 N_i, N_j, M, C), and the derivative through the edges alone,
            with the features fixed  # (W, N_i, N_j, 3 of x_j, 3)
        """
        walkers, atoms, slots, _ = functions.radial.shape
        assert functions.radial_slope is not None
        assert functions.angular_gradient is not None and functions.outward is not None
        carried, turned, stretched = [], reader.new_zeros(()), reader.new_zeros(())
        rows = _rows(neighbours.pairs, atoms)
        for degree, part in zip(self.degrees, parts, strict=True):
            to_angular = getattr(self, f"read_{degree}")
            slopes = self._radial_weights(functions.radial_slope, degree).unsqueeze(-2) * part.features.unsqueeze(-3)
            turned = turned + (part.products.flatten(2, 4) @ reader).view(walkers, atoms, slots, -1) @ to_angular
            stretched = stretched + (slopes.flatten(2, 4) @ reader).view(walkers, atoms, slots, -1) @ to_angular
            read = self._read_matrices(part.weights, functions.angular, reader, degree)  # (W, N, K, 3, M, C)
            dense = read.new_zeros(walkers * 3 * atoms**2, *read.shape[-2:]).index_add_(0, rows, read.flatten(0, 3))
            if degree == 1:
                dense = _add_own_(dense, own, walkers, atoms)
            carried.append(dense.view(walkers, 3 * atoms, atoms, *read.shape[-2:]))
        shape = (walkers, atoms, slots, -1, 3)
        slopes = functions.angular_gradient @ turned.view(shape) + functions.outward @ stretched.view(shape)
        return carried, jacobian_of_sum(slopes, neighbours.pairs)

    def _read_matrices(self, weights: Tensor, angular: Tensor, reader: Tensor, degree: int) -> Tensor:
        """d d_i[v] / d h_j^c[a] along every edge, for the components a of this degree.

        Args:
            weights: w_p^c.  # (W, N, K, paths, C)
        """
        vectors, scalars = reader[..., 0][:, :, None, None], reader[..., 1:].mT[:, :, None, None]
        # The only path to the scalars comes first; it needs an edge function of the degree of its input.
        first = 1 if degree <= self.edge_lmax else 0
        to_vectors, to_scalars = weights[..., first:, :] * vectors, weights[..., :first, None, :] * scalars
        opened = torch.cat([to_vectors, to_scalars.flatten(3, 4)], dim=3)
        angular = (angular @ getattr(self, f"opened_{degree}")).unflatten(-1, (-1, opened.shape[3]))
        return (angular @ opened).unflatten(-2, (3, -1))

    def _arrangements(self, couplings: Tensor) -> dict[str, Tensor]:
        paths, angular, _, components = couplings.shape
        # The vector output v, and the scalar output for each v.
        read = torch.zeros(paths, components, 4, angular, 3, dtype=couplings.dtype)
        read[:, :, 0] = couplings[:, :, 1:4].permute(0, 3, 1, 2)
        for direction in range(3):
            read[:, :, 1 + direction, :, direction] = couplings[:, :, 0].mT
        to_scalars = couplings[:, :, 0].flatten(1).any(1)
        # (lm, v, M, paths to vectors), and (lm, v, M, paths to scalars, (the v that the reader takes it for))
        vectors = couplings[~to_scalars][:, :, 1:4].permute(1, 2, 3, 0)
        scalars = torch.einsum("plm,vu->lvmpu", couplings[to_scalars][:, :, 0], torch.eye(3, dtype=couplings.dtype))
        return {
            "by_output": super()._arrangements(couplings)["by_output"],
            "read": read.flatten(3).flatten(0, 2),  # (paths M 4, lm 3)
            "opened": torch.cat([vectors, scalars.flatten(3)], dim=-1).flatten(1),
        }


def _rows(pairs: Tensor, atoms: int) -> Tensor:
    """Flat index (walker, i, v, j) of all components v of the edges.  # (W N K,) -> (W N K 3,)"""
    first = pairs.div(atoms, rounding_mode="floor") * (3 * atoms) + pairs.remainder(atoms)
    return (first.unsqueeze(-1) + torch.arange(3, device=pairs.device) * atoms).flatten()


def _add_own_(dense: Tensor, own: Tensor, walkers: int, atoms: int) -> Tensor:
    """Add own[c] for i = j and equal components v, in place.  # (W 3 N N, 3, C), (1, C) or (W, 1, C)"""
    same = torch.arange(walkers * atoms, device=dense.device)
    rows = _rows(same * atoms + same.remainder(atoms), atoms)
    values = torch.diag_embed(own.unsqueeze(-1).expand(*own.shape, 3), dim1=-3, dim2=-2)  # (..., 1, 3, 3, C)
    return dense.index_add_(0, rows, values.expand(walkers, atoms, 3, 3, -1).reshape(-1, 3, own.shape[-1]))
