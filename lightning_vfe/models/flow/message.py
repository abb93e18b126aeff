"""The equivariant message, linear in the neighbours' features, with its Jacobian."""

from __future__ import annotations

import math

import torch
from e3nn import o3
from torch import Tensor, nn

from lightning_vfe.models.flow.edges import add_receiver_columns_
from lightning_vfe.models.flow.jet import Jet


class Message(nn.Module):
    """m_i^c = sum_j M_ij^c h_j^c: what atom i receives from all atoms j and their images.

    M_ij^c is a small matrix between the components o of the output and a of the input, channel by channel
    (paths "uvu" of an e3nn tensor product):

        M_ij^c[o, a] = sum_f phi_f(i, j) G[f, c, o, a],
        G[(lm, b), c, o, a] = sum_paths W[path, b, c] 3j_path[lm, o, a].

    With respect to the coordinates there are two parts,

        dm_i / dx = sum_j M_ij (dh_j / dx)  +  sum_j (d phi_f(i, j) / d x) G_f h_j,

    a batched matrix product over (j, a), and a term in which a pair touches the columns of x_i and x_j only.

    Args:
        input_irreps: irreps of one input channel, one copy of each.
        output_irreps: irreps of one output channel.
        edge_irreps: irreps of the edge basis.
        num_channels: C.
        num_radial: radial functions per edge component.
        mean_neighbours: typical number of terms in the sum over j, which is divided by its square root.
    """

    coupling: Tensor

    def __init__(
        self,
        input_irreps: o3.Irreps,
        output_irreps: o3.Irreps,
        edge_irreps: o3.Irreps,
        num_channels: int,
        num_radial: int,
        mean_neighbours: float,
    ) -> None:
        super().__init__()
        coupling = _path_couplings(input_irreps, output_irreps, edge_irreps) / math.sqrt(mean_neighbours)
        self.register_buffer("coupling", coupling.to(torch.get_default_dtype()), persistent=False)
        self.weight = nn.Parameter(torch.randn(len(coupling), num_radial, num_channels) / math.sqrt(num_radial))

    def forward(self, features: Jet, basis: Tensor) -> Jet:
        """Sum the messages; the Jacobian is carried where `basis` has gradients.

        Args:
            features: of all atoms; axes of length one for walkers or atoms stand for equal features.  # (W, A, C, N)
            basis: of all pairs.  # (W, N_j, N_i, D, F)

        Returns:
            # (W, O, C, N)
        """
        walkers, atoms, _, derivatives, _ = basis.shape
        shape = (self.coupling.shape[2], self.weight.shape[-1])
        filters = torch.einsum("...pbc,pmoa->...mbcoa", self.weight, self.coupling).flatten(-5, -4)  # (..., F, C, O, A)
        sent = torch.einsum("...fcoa,...acj->...jocf", filters, features.value).flatten(2, 3)  # (W, N_j, OC, F)
        terms = sent @ basis.flatten(2, 3).transpose(-1, -2)  # (W, N_j, OC, N_i D)
        terms = terms.view(walkers, atoms, *shape, atoms, derivatives)
        value = terms[..., 0].sum(1)
        if derivatives == 1:
            return Jet(value)
        slopes = terms[..., 1:].permute(0, 2, 3, 4, 1, 5)  # (W, O, C, N_i, N_j, 3)
        if features.jacobian is None:
            jacobian = slopes.clone(memory_format=torch.contiguous_format)
        else:
            jacobian = slopes + self._carried_jacobian(filters, features.jacobian, basis[..., 0, :])
        jacobian = add_receiver_columns_(jacobian, slopes)
        return Jet(value, jacobian.flatten(-2))

    def _carried_jacobian(self, filters: Tensor, jacobian: Tensor, value: Tensor) -> Tensor:
        """The features' own Jacobian, sent along the edges.  # (W, O, C, N_i, N_j, 3)"""
        walkers, inputs, channels, atoms, columns = jacobian.shape
        matrices = (value.flatten(1, 2) @ filters.flatten(-3)).view(walkers, atoms, atoms, *filters.shape[-3:])
        matrices = matrices.permute(0, 3, 4, 2, 5, 1).reshape(walkers, channels, -1, inputs * atoms)
        sent = matrices @ jacobian.transpose(1, 2).reshape(walkers, channels, inputs * atoms, columns)
        return sent.view(walkers, channels, -1, atoms, atoms, 3).transpose(1, 2)


def _path_couplings(input_irreps: o3.Irreps, output_irreps: o3.Irreps, edge_irreps: o3.Irreps) -> Tensor:
    """Wigner 3j symbols of every allowed path (input, edge) -> output, as one array.

    Each is scaled so that independent unit-variance weights and components give outputs of unit variance.

    Returns:
        float64.  # (paths, edge components, output components, input components)
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
            paths.append(path)
    return torch.stack(paths)
