"""The equivariant message, linear in the neighbours' features, and what its derivatives need."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from e3nn import o3
from torch import Tensor, nn

from lightning_vfe.models.flow.edge_basis import EdgeFunctions
from lightning_vfe.models.flow.edges import Neighbours, jacobian_of_sum, sum_images


class Sent(NamedTuple):
    """Parts of the messages along all edges from the features of one degree l, with M = 2 l + 1 components.

    A path p has the radial weight w_p^c = sum_b W[p, b, c] R_b of an edge.
    """

    features: Tensor
    """h_j^c of the sender. # (W, N, K, M, C)"""
    weights: Tensor
    """w_p^c. # (W, N, K, paths, C)"""
    products: Tensor
    """w_p^c h_j^c. # (W, N, K, paths, M, C)"""


class Message(nn.Module):
    """m_i^c = sum_e M_e^c h_j^c: what atom i receives along its edges e from atoms j and their images.

    M_e^c is a small matrix between the components o of the output and a of the input, channel by channel (paths "uvu"
    of an e3nn tensor product):

        M_e^c[o, a] = sum_paths (sum_b W[path, b, c] R_b(e)) (sum_lm 3j_path[lm, o, a] A_lm(e)).

    The features of the senders are multiplied with the radial weights first; one matrix product over edges, paths and
    components a then gives m_i.

    Args:
        input_irreps: irreps of one input channel, one copy of each.
        output_irreps: irreps of one output channel.
        edge_irreps: irreps of the edge functions; those of higher degree than these are left out.
        num_channels: C.
        num_radial: radial functions per edge component.
        mean_neighbours: typical number of terms in the sum over e, which is divided by its square root.
        num_angular: number of edge functions A_lm, of the higher degrees too.
        largest_output: degree above which no one reads the output, so that it is not computed; None computes all.
    """

    def __init__(
        self,
        input_irreps: o3.Irreps,
        output_irreps: o3.Irreps,
        edge_irreps: o3.Irreps,
        num_channels: int,
        num_radial: int,
        mean_neighbours: float,
        num_angular: int,
        largest_output: int | None = None,
    ) -> None:
        super().__init__()
        paths = path_couplings(input_irreps, output_irreps, edge_irreps)
        self.weight = nn.Parameter(torch.randn(len(paths), num_radial, num_channels) / math.sqrt(num_radial))
        largest_output = len(output_irreps) - 1 if largest_output is None else largest_output
        self.num_outputs = (largest_output + 1) ** 2
        self.edge_lmax = edge_irreps.lmax
        self.degrees = sorted({source for _, source, target in paths if target <= largest_output})
        """Degrees of the input that reach an output."""
        for degree in self.degrees:
            used = [i for i, (_, source, target) in enumerate(paths) if source == degree and target <= largest_output]
            # By their output, as `path_couplings` has them: a path to the scalars comes first.
            self.register_buffer(f"paths_{degree}", torch.tensor(used, dtype=torch.long), persistent=False)
            couplings = torch.zeros(len(used), num_angular, self.num_outputs, 2 * degree + 1, dtype=torch.float64)
            for row, i in enumerate(used):
                block = paths[i][0][:, : self.num_outputs, degree**2 : (degree + 1) ** 2]
                couplings[row, : len(block)] = block / math.sqrt(mean_neighbours)
            for name, constant in self._arrangements(couplings).items():
                constant = constant.to(torch.get_default_dtype())
                self.register_buffer(f"{name}_{degree}", constant, persistent=False)

    def _arrangements(self, couplings: Tensor) -> dict[str, Tensor]:
        """The couplings of all paths from one degree in the orders of axes that the matrix products ask for.

        Args:
            couplings: # (paths, lm, O, M)
        """
        return {
            "by_output": couplings.permute(1, 0, 3, 2).flatten(1),  # (lm, paths M O)
            "by_path": couplings.permute(1, 2, 3, 0).flatten(1),  # (lm, O M paths)
            "by_row": couplings.permute(1, 2, 0, 3).flatten(1),  # (lm, O paths M)
        }

    def forward(self, features: Tensor, functions: EdgeFunctions, neighbours: Neighbours) -> tuple[Tensor, list[Sent]]:
        """Sum the messages.

        Args:
            features: of all atoms.  # (W, N, A, C)
            functions: of all edges.
            neighbours: the edges.

        Returns:
            m_i  # (W, N, O, C), and the parts for the derivatives, one for each of `degrees`
        """
        walkers, atoms, slots, _ = functions.radial.shape
        message, parts = features.new_zeros(()), []
        for degree in self.degrees:
            block = features[:, :, degree**2 : (degree + 1) ** 2]
            sent = block.flatten(0, 1).index_select(0, neighbours.senders).view(walkers, atoms, slots, *block.shape[2:])
            weights = self._radial_weights(functions.radial, degree)
            products = weights.unsqueeze(-2) * sent.unsqueeze(-3)
            angular = functions.angular @ getattr(self, f"by_output_{degree}")  # (W, N, K, paths M O)
            angular = angular.view(walkers, atoms, -1, self.num_outputs)
            message = message + angular.mT @ products.flatten(2, 4)
            parts.append(Sent(sent, weights, products))
        return message, parts

    def jacobian(
        self, parts: list[Sent], functions: EdgeFunctions, neighbours: Neighbours, jacobians: list[Tensor]
    ) -> Tensor:
        """d m_i / d x for features with Jacobians.

        Args:
            parts: from `forward`.
            functions: of all edges, with gradients.
            neighbours: the edges.
            jacobians: d h_j / d x for l = 0, 1, ...  # (W, N, M C, 3 N)

        Returns:
            # (W, N, O C, 3 N)
        """
        walkers, atoms, slots, _ = functions.radial.shape
        assert functions.radial_slope is not None
        assert functions.angular_gradient is not None and functions.outward is not None
        carried = jacobians[0].new_zeros(())
        angular, products = [], []
        for degree, part in zip(self.degrees, parts, strict=True):
            matrices = sum_images(self._matrices(part, functions.angular, degree), neighbours.pairs)
            channels, components = matrices.shape[-1], matrices.shape[-2]
            matrices = matrices.permute(0, 5, 1, 3, 2, 4).reshape(walkers, channels, -1, atoms * components)
            moved = jacobians[degree].unflatten(2, (components, channels)).permute(0, 3, 1, 2, 4)
            carried = carried + matrices @ moved.reshape(walkers, channels, atoms * components, -1)
            stretched = self._radial_weights(functions.radial_slope, degree).unsqueeze(-2) * part.features.unsqueeze(-3)
            coupling = getattr(self, f"by_row_{degree}")
            for gradient, factor in ((functions.angular_gradient, part.products), (functions.outward, stretched)):
                angular.append((gradient @ coupling).unflatten(-1, (self.num_outputs, -1)))  # (W, N, K, 3, O, paths M)
                products.append(factor.flatten(3, 4))  # (W, N, K, paths M, C)
        slopes = torch.cat(angular, dim=-1).flatten(3, 4) @ torch.cat(products, dim=3)
        edges = jacobian_of_sum(slopes.unflatten(3, (3, -1)), neighbours.pairs)  # (W, N_i, N_j, 3, O, C)
        edges = edges.permute(0, 1, 4, 5, 2, 3).reshape(walkers, atoms, -1, 3 * atoms)
        carried = carried.unflatten(2, (atoms, self.num_outputs)).permute(0, 2, 3, 1, 4)
        return edges + carried.reshape(edges.shape)

    def _radial_weights(self, radial: Tensor, degree: int) -> Tensor:
        """sum_b W[p, b, c] R_b for the paths from this degree.  # (W, N, K, b) -> (W, N, K, paths, C)"""
        weight = self.weight.index_select(-3, getattr(self, f"paths_{degree}"))
        weights = radial.flatten(1, 2) @ weight.transpose(-3, -2).flatten(-2)
        return weights.view(*radial.shape[:3], -1, self.weight.shape[-1])

    def _matrices(self, part: Sent, angular: Tensor, degree: int) -> Tensor:
        """M_e^c[o, a] for the components a of this degree.  # (W, N, K, O, M, C)"""
        angular = (angular @ getattr(self, f"by_path_{degree}")).unflatten(-1, (-1, part.weights.shape[-2]))
        return (angular @ part.weights).unflatten(-2, (self.num_outputs, -1))


def path_couplings(
    input_irreps: o3.Irreps, output_irreps: o3.Irreps, edge_irreps: o3.Irreps
) -> list[tuple[Tensor, int, int]]:
    """Wigner 3j symbols of every allowed path (input, edge) -> output, with the degrees of its input and output.

    Each is scaled so that independent unit-variance weights and components give outputs of unit variance.

    Returns:
        float64.  # (edge components, output components, input components)
    """
    paths = []
    for ir_output, rows in zip(output_irreps, output_irreps.slices(), strict=True):
        fan_in = [
            (ir_input.ir, columns, ir_edge.ir, components)
            for ir_input, columns in zip(input_irreps, input_irreps.slices(), strict=True)
            for ir_edge, components in zip(edge_irreps, edge_irreps.slices(), strict=True)
            if ir_output.ir in ir_input.ir * ir_edge.ir
        ]
        for ir_input, columns, ir_edge, components in fan_in:
            path = torch.zeros(edge_irreps.dim, output_irreps.dim, input_irreps.dim, dtype=torch.float64)
            symbol = o3.wigner_3j(ir_edge.l, ir_output.ir.l, ir_input.l, dtype=torch.float64)
            path[components, rows, columns] = symbol * math.sqrt(ir_output.ir.dim / len(fan_in))
            paths.append((path, ir_input.l, ir_output.ir.l))
    return paths
