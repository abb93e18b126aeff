"""The flow's first block: it opens the repulsive core around every proton without folding space."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_vfe.models.flow.edges import Edges, add_receiver_columns_, sum_images
from lightning_vfe.models.flow.jet import Jet
from lightning_vfe.physics.cell import PeriodicCell

# Widths of the Gaussians of t(r), in units of rs: from inside the core to the first neighbours.
WIDTHS = (0.25, 0.5, 0.75)
# Bounds of a. Above: the smallest det dz/dx of a pair is about exp(-45), far below what is ever sampled and far above
# rounding errors. Below: for a < -2 a narrow t(r) rises so fast that distances could change their order.
LARGEST_AMPLITUDE, SMALLEST_AMPLITUDE = 16.0, -2.0
# a per unit of the raw parameter. exp(-E/kT) spans tens of orders of magnitude in the core. The block has to take that
# up within tens of optimizer steps, before the message blocks, which are linear in their readout, try and fold space.
GAIN = 100.0


class ContactBlock(nn.Module):
    """Delta_i = 1/2 sum_j (exp[t(r_ij)] - 1) g(r_ij) r_ij / (1 + sum_j exp[t(r_ij)] g(r_ij)), sums over all images.

        t(r) = a sum_b w_b exp(-r^2 / rho_b^2) c(r),   g(r) = exp(-r^2 / rho_max^2) c(r),   sum_b w_b = 1, w_b > 0,

    with the taper c of `Edges`. For t > 0 each proton moves at most half the way to a weighted mean of its neighbours.
    An isolated pair at distance r in x is mapped to the distance r (1 + g) / (1 + g exp(t)) in z, which increases with
    r for every a and w: the determinant falls like exp(-3 t) in the core and stays positive. A residual map that is
    linear in its last parameters passes zero there instead, and turns space inside out (measured: a few percent of the
    volume after some hundred steps for hydrogen at 6000 K). ln det is nearly linear in a, which conditions the training
    well. a = 0 is the identity.

    Args:
        cell: the periodic cell.
        cutoff: range of the tapers in bohr.
    """

    exponents: Tensor

    def __init__(self, cell: PeriodicCell, cutoff: float) -> None:
        super().__init__()
        self.edges = Edges(cell, cutoff)
        exponents = (torch.tensor(WIDTHS, dtype=torch.float64) * cell.rs) ** -2
        self.register_buffer("exponents", exponents.to(torch.get_default_dtype()), persistent=False)
        self.amplitude = nn.Parameter(torch.zeros(()))
        self.logits = nn.Parameter(torch.zeros(len(WIDTHS)))

    def forward(self, positions: Tensor, with_jacobian: bool) -> Jet:
        """Displacements and, where wanted, their Jacobian.

        Args:
            positions: bohr.  # (W, N, 3)
            with_jacobian: also carry the Jacobian.

        Returns:
            Delta in bohr  # (W, N, 3), and d Delta / d x  # (W, N, 3, 3 N)
        """
        vectors, pairs = self.edges(positions)
        weights = self._weights(pairs // positions.shape[1] ** 2)
        terms = sum_images(self._on_edges(vectors, weights, with_jacobian), pairs, positions)  # (W, N_j, N_i, 4, D)
        sums = Jet(terms[..., 0].sum(1).transpose(1, 2).unsqueeze(2))  # (W, 4, 1, N)
        if with_jacobian:
            slopes = terms[..., 1:].permute(0, 3, 2, 1, 4)  # (W, 4, N_i, N_j, 3)
            jacobian = add_receiver_columns_(slopes.clone(memory_format=torch.contiguous_format), slopes)
            sums = Jet(sums.value, jacobian.flatten(-2).unsqueeze(2))
        attraction = sums.components(slice(0, 1))
        share = 0.5 / (1.0 + attraction.value)
        moved = sums.components(slice(1, 4)).times(attraction.pointwise(share, -2.0 * share.square()))
        return moved.per_atom()

    def _weights(self, walkers: Tensor) -> Tensor:
        """a w_b, for all edges together or, where each walker has its own parameters, for every edge.

        Args:
            walkers: the walker of every edge.  # (E,)

        Returns:
            # (b, 1) or (E, b, 1)
        """
        weights = (self._bounded_amplitude().unsqueeze(-1) * torch.softmax(self.logits, dim=-1)).unsqueeze(-1)
        return weights if weights.ndim == 2 else weights.index_select(0, walkers)

    def _on_edges(self, vectors: Tensor, weights: Tensor, with_gradient: bool) -> Tensor:
        """exp(t) g, then (exp(t) - 1) g r, and their gradients where wanted.  # (E, 3) -> (E, 4, D)"""
        squared = vectors.square().sum(-1, keepdim=True)
        taper, taper_slope = self.edges.taper(squared)
        gaussians = torch.exp(-squared * self.exponents)
        bells = gaussians * taper  # (E, b)
        grown = torch.exp((bells.unsqueeze(-2) @ weights).squeeze(-1))
        bell = bells[:, -1:]
        attraction, excess = bell * grown, bell * (grown - 1.0)
        value = torch.cat([attraction, excess * vectors], dim=-1).unsqueeze(-1)
        if not with_gradient:
            return value
        # As d f / d r = r * (slope of f), since everything depends on r^2.
        slopes = gaussians * taper_slope - 2.0 * self.exponents * bells
        attraction_slope = slopes[:, -1:] * grown + attraction * (slopes.unsqueeze(-2) @ weights).squeeze(-1)
        outer = (attraction_slope - slopes[:, -1:]).unsqueeze(-1) * vectors.unsqueeze(-1) * vectors.unsqueeze(-2)
        outer = outer + excess.unsqueeze(-1) * torch.eye(3, dtype=vectors.dtype, device=vectors.device)
        gradient = torch.cat([(attraction_slope * vectors).unsqueeze(1), outer], dim=1)  # (E, 4, 3)
        return torch.cat([value, gradient], dim=-1)

    def _bounded_amplitude(self) -> Tensor:
        """a between its bounds, twice differentiable, with slope GAIN at zero."""
        raw = GAIN * self.amplitude
        high = LARGEST_AMPLITUDE * torch.tanh(raw / LARGEST_AMPLITUDE)
        low = SMALLEST_AMPLITUDE * torch.tanh(raw / SMALLEST_AMPLITUDE)
        return torch.where(raw > 0, high, low)
