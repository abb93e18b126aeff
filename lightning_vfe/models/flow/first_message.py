"""The first message of a network, when all atoms are still alike."""

from __future__ import annotations

import math

import torch
from e3nn import o3
from torch import Tensor, nn

from lightning_vfe.models.flow.edge_basis import EdgeFunctions
from lightning_vfe.models.flow.edges import Neighbours, jacobian_of_sum
from lightning_vfe.models.flow.message import path_couplings


class FirstMessage(nn.Module):
    """m_i^c = sum_b filters[l, c, b] Phi_i[lm, b], where Phi_i[lm, b] = sum_e A_lm(e) R_b(e) holds no parameters.

    It is a `Message` from one constant scalar per channel. There is one path for each l, and its weight does not depend
    on the edge, so that sums over edges, and their Jacobians, are taken before the channels come in.

    Args:
        output_irreps: irreps of one output channel.
        edge_irreps: irreps of the edge functions; outputs of higher degree than these are zero.
        num_channels: C.
        num_radial: b, radial functions per edge component.
        mean_neighbours: typical number of terms in the sum over e, which is divided by its square root.
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
        self.num_degrees = len(output_irreps)
        # Coupled with a scalar, the edge functions of degree l are multiples of the output.
        scales = torch.stack([path[degree**2, degree**2, 0] for path, _, degree in paths]) / math.sqrt(mean_neighbours)
        self.register_buffer("scales", scales.to(torch.get_default_dtype()).view(-1, 1, 1), persistent=False)

    def filters(self) -> Tensor:
        """Weights from b to the channels.  # (..., degrees, C, b)"""
        filters = (self.scales * self.weight).mT
        return nn.functional.pad(filters, (0, 0, 0, 0, 0, self.num_degrees - len(self.scales)))

    def forward(self, functions: EdgeFunctions) -> Tensor:
        """Phi_i.  # (W, N, A, b)"""
        return functions.angular[..., : self.num_degrees**2].mT @ functions.radial

    def jacobian(self, functions: EdgeFunctions, neighbours: Neighbours) -> Tensor:
        """d Phi_i / d x.  # (W, N, A b, 3 N)"""
        assert functions.radial_slope is not None
        assert functions.angular_gradient is not None and functions.outward is not None
        turned, outward = functions.angular_gradient, functions.outward
        components = self.num_degrees**2
        slopes = turned[..., :components, None] * functions.radial[..., None, None, :]
        slopes = slopes.addcmul_(outward[..., :components, None], functions.radial_slope[..., None, None, :])
        jacobian = jacobian_of_sum(slopes, neighbours.pairs)  # (W, N_i, N_j, 3, A, b)
        return jacobian.flatten(4).flatten(2, 3).mT
