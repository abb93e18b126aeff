"""The equivariant message, linear in the neighbours' features, and its Jacobian."""

from __future__ import annotations

import math

import torch
from e3nn import o3
from torch import Tensor, nn

from lightning_vfe.models.flow.couplings import arranged_couplings, path_couplings
from lightning_vfe.models.flow.edge_basis import PairFunctions
from lightning_vfe.models.flow.edges import jacobian_of_sum


class FirstMessage(nn.Module):
    """m_i^c = scales[l] sum_b filters[l, c, b] Phi_i[lm, b], where Phi_i[lm, b] = sum_j T_ij[lm, b] has no parameters.

    It is a `Message` from one constant scalar per channel, when all atoms are still alike. There is one path for each
    l, and its weight does not depend on the edge, so that sums over edges, and their Jacobians, are taken before the
    channels come in.

    Args:
        output_irreps: irreps of one output channel.
        edge_irreps: irreps of the edge functions; outputs of higher degree than these are zero, and are left out.
        num_channels: C.
        num_radial: b, radial functions per edge component.
        mean_neighbours: typical number of terms in the sum over edges, which is divided by its square root.
    """

    scales: Tensor

    def __init__(
        self,
        output_irreps: o3.Irreps,
        edge_irreps: o3.Irreps,
        num_channels: int,
        num_radial: int,
        mean_neighbours: float,
    ) -> None:
        super().__init__()
        paths = path_couplings(o3.Irreps("1x0e"), output_irreps, edge_irreps)
        self.weight = nn.Parameter(torch.randn(len(paths), num_radial, num_channels) / math.sqrt(num_radial))
        # Those of the functions (lm, b) that reach an output are the first ones.
        self.num_functions = len(paths) ** 2 * num_radial
        # Coupled with a scalar, the edge functions of degree l are multiples of the output.
        scales = torch.stack([path.couplings[path.output**2, path.output**2, 0] for path in paths])
        scales = scales.to(torch.get_default_dtype()) / math.sqrt(mean_neighbours)
        self.register_buffer("scales", scales, persistent=False)

    def filters(self) -> Tensor:
        """Weights from b to the channels, except for the scales.  # (..., degrees, C, b)"""
        return self.weight.mT

    def forward(self, functions: PairFunctions) -> Tensor:
        """Phi_i.  # (W, N, A b)"""
        return functions.values[..., : self.num_functions].sum(2)

    def jacobian(self, functions: PairFunctions, same: Tensor) -> Tensor:
        """d Phi_i / d x.

        Args:
            functions: of all pairs, with gradients.
            same: one for j = i.  # (N_i, N_j)

        Returns:
            # (W, N, A b, 3 N)
        """
        assert functions.gradients is not None
        gradients = jacobian_of_sum(functions.gradients[..., : self.num_functions], same)  # (W, N_i, N_j, 3, A b)
        return gradients.flatten(2, 3).mT


class Message(nn.Module):
    """m_i = sum_j M_ij h_j: what atom i receives from all atoms j and their images.

    M_ij^c is a small matrix between the components o of the output and a of the input, channel by channel (paths "uvu"
    of an e3nn tensor product):

        M_ij^c[o, a] = sum_paths sum_b W[path, b, c] sum_lm 3j_path[lm, o, a] T_ij[lm, b].

    All that depends on the sender comes first, Q_j[k, (o, c)] with k = (lm, b). Then m_i = sum_jk T_ij[k] Q_j[k] is one
    large matrix product for every walker.

    Args:
        input_irreps: irreps of one input channel, one copy of each.
        output_irreps: irreps of one output channel.
        edge_irreps: irreps of the edge functions.
        num_channels: C.
        num_radial: radial functions per edge component.
        mean_neighbours: typical number of terms in the sum over edges, which is divided by its square root.
        largest_output: degree above which no one reads the output, so that it is not computed; None computes all.
    """

    places: Tensor
    couplings: Tensor

    def __init__(
        self,
        input_irreps: o3.Irreps,
        output_irreps: o3.Irreps,
        edge_irreps: o3.Irreps,
        num_channels: int,
        num_radial: int,
        mean_neighbours: float,
        largest_output: int | None = None,
    ) -> None:
        super().__init__()
        paths = path_couplings(input_irreps, output_irreps, edge_irreps)
        self.weight = nn.Parameter(torch.randn(len(paths), num_radial, num_channels) / math.sqrt(num_radial))
        self.num_channels, self.num_radial = num_channels, num_radial
        self.num_outputs = ((len(output_irreps) - 1 if largest_output is None else largest_output) + 1) ** 2
        places, couplings = arranged_couplings(paths, self.num_outputs, num_radial)
        couplings = couplings.to(torch.get_default_dtype()) / math.sqrt(mean_neighbours)
        self.register_buffer("places", places.flatten(), persistent=False)
        self.register_buffer("couplings", couplings, persistent=False)

    def weights(self) -> Tensor:
        """W[path, b, c], where (lm, o) tells the path; F of them, at most, have the same degrees l and o.

        Returns:
            # (..., F, lm, b, O, C)
        """
        fan, angular, outputs, _ = self.couplings.shape
        chosen = self.weight.flatten(-3, -2).index_select(-2, self.places)
        by_path: Tensor = chosen.unflatten(-2, (fan, angular, self.num_radial, outputs))
        return by_path

    def from_senders(self, features: Tensor, weights: Tensor) -> Tensor:
        """Q_j.

        Args:
            features: of all atoms.  # (W, N, A C)
            weights: from `weights`.

        Returns:
            # (W, N, K, O C)
        """
        walkers, atoms = features.shape[:2]
        fan, angular, outputs, components = self.couplings.shape
        columns = features.view(walkers * atoms, components, -1)
        coupled = torch.bmm(self.couplings.view(-1, components).expand(walkers * atoms, -1, -1), columns)
        coupled = coupled.view(walkers, atoms, fan, angular, 1, outputs, -1)
        senders = coupled * weights.unsqueeze(-6)
        senders = senders.squeeze(2) if fan == 1 else senders.sum(2)
        return senders.view(walkers, atoms, angular * self.num_radial, -1)

    def forward(self, functions: PairFunctions, senders: Tensor) -> Tensor:
        """Sum the messages.

        Args:
            functions: of all pairs.
            senders: Q_j, from `from_senders`.

        Returns:
            m_i  # (W, N, O C)
        """
        return torch.bmm(functions.values.flatten(2), senders.flatten(1, 2))

    def matrices(self, weights: Tensor) -> Tensor:
        """From T to M: sum_paths W[path, b, c] 3j_path[lm, o, a].  # (..., K, O, A, C)"""
        fan, angular, outputs, components = self.couplings.shape
        matrices = self.couplings.view(fan, angular, 1, outputs, components, 1) * weights.unsqueeze(-2)
        matrices = matrices.squeeze(-6) if fan == 1 else matrices.sum(-6)
        return matrices.flatten(-5, -4)

    def jacobian(
        self, features: Tensor, functions: PairFunctions, weights: Tensor, jacobian: Tensor, same: Tensor
    ) -> Tensor:
        """d m_i / d x for features with a Jacobian.

        Args:
            features: as for `from_senders`.
            functions: of all pairs, with gradients.
            weights: as for `from_senders`.
            jacobian: d h_j / d x.  # (W, N, A C, 3 N)
            same: one for j = i.  # (N_i, N_j)

        Returns:
            # (W, N, O C, 3 N)
        """
        assert functions.gradients is not None
        walkers, atoms = features.shape[:2]
        matrices = self.matrices(weights)
        outputs, components, channels = matrices.shape[-3:]
        matrices = matrices.flatten(-3)  # (..., K, O A C)
        shape = (walkers, atoms, atoms, outputs, components, channels)
        # Through the features of the senders.
        pairs = (functions.values.flatten(1, 2) @ matrices).view(shape)
        pairs = pairs.permute(0, 5, 1, 3, 2, 4).reshape(walkers, channels, atoms * outputs, atoms * components)
        senders = jacobian.unflatten(2, (components, channels)).permute(0, 3, 1, 2, 4).flatten(2, 3)  # (W, C, N A, 3 N)
        by_features = (pairs @ senders).unflatten(2, (atoms, outputs)).permute(0, 2, 3, 1, 4)  # (W, N, O, C, 3 N)
        # Through the edges, with the features fixed.
        by_edges = (functions.gradients.flatten(1, 3) @ matrices).view(*shape[:3], 3, *shape[3:])
        by_edges = (by_edges * features.view(walkers, 1, atoms, 1, 1, components, channels)).sum(-2)
        by_edges = jacobian_of_sum(by_edges, same)  # (W, N_i, N_j, 3, O, C)
        total: Tensor = (by_features + by_edges.permute(0, 1, 4, 5, 2, 3).flatten(-2)).flatten(2, 3)
        return total
