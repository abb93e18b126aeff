"""The flow's first block: it opens the repulsive core around every proton without folding space."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_vfe.models.flow.condition import NUM_CONDITIONS, conditioned
from lightning_vfe.models.flow.edges import Edges, jacobian_of_sum, squared_length
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
    well. a = 0 is the identity. a and w depend on the state point (condition.py).

    Args:
        cell: the periodic cell in units of rs, as are all lengths here.
        cutoff: range of the tapers.
    """

    exponents: Tensor

    def __init__(self, cell: PeriodicCell, cutoff: float) -> None:
        super().__init__()
        self.edges = Edges(cell, cutoff)
        exponents = torch.tensor(WIDTHS, dtype=torch.float64) ** -2
        self.register_buffer("exponents", exponents.to(torch.get_default_dtype()), persistent=False)
        self.amplitude = nn.Parameter(torch.zeros(()))
        self.logits = nn.Parameter(torch.zeros(len(WIDTHS)))
        self.amplitude_slopes = nn.Parameter(torch.zeros(NUM_CONDITIONS))
        self.logit_slopes = nn.Parameter(torch.zeros(NUM_CONDITIONS, len(WIDTHS)))

    def forward(self, positions: Tensor, condition: Tensor, with_jacobian: bool) -> Jet:
        """Displacements and, where wanted, their Jacobian.

        Args:
            positions: # (W, N, 3)
            condition: of the state points.  # (W, NUM_CONDITIONS)
            with_jacobian: also carry the Jacobian.

        Returns:
            Delta  # (W, N, 3), and d Delta / d x  # (W, N, 3, 3 N)
        """
        vectors, _, pairs = self.edges(positions)
        squared = squared_length(vectors)
        taper, taper_slope = self.edges.taper(squared)
        gaussians = torch.exp(-squared * self.exponents)
        bells = gaussians * taper  # (W, N, K, b)
        weights = self._weights(condition)
        grown = torch.exp((bells.flatten(1, 2) @ weights).view_as(squared))
        attraction = bells[..., -1:] * grown  # (W, N, K, 1)
        excess = attraction - bells[..., -1:]
        share = 0.5 / (1.0 + attraction.sum(2))  # (W, N, 1)
        moved = share * (excess * vectors).sum(2)
        if not with_jacobian:
            return Jet(moved)
        # As d f / d r = r * (slope of f), since everything depends on r^2.
        slopes = gaussians * taper_slope - 2.0 * self.exponents * bells
        growth = (slopes.flatten(1, 2) @ weights).view_as(squared)
        attraction_slope = slopes[..., -1:] * grown + attraction * growth
        # The derivative of every term of share * sum(excess r), and of the share with every term of its own sum.
        change = share.unsqueeze(2) * (attraction_slope - slopes[..., -1:]) * vectors
        change = change - 2.0 * (share * moved).unsqueeze(2) * attraction_slope
        gradient = vectors.unsqueeze(-1) * change.unsqueeze(-2)  # (W, N, K, 3, 3)
        gradient.diagonal(dim1=-2, dim2=-1).add_(share.unsqueeze(2) * excess)
        return Jet(moved, jacobian_of_sum(gradient, pairs).permute(0, 1, 4, 2, 3).flatten(-2))

    def _weights(self, condition: Tensor) -> Tensor:
        """a w_b.  # (W, b, 1)"""
        amplitude = _bounded(conditioned(self.amplitude, self.amplitude_slopes, condition, ndim=0))
        logits = conditioned(self.logits, self.logit_slopes, condition, ndim=1)
        return (amplitude.unsqueeze(-1) * torch.softmax(logits, dim=-1)).unsqueeze(-1)


def _bounded(amplitude: Tensor) -> Tensor:
    """a between its bounds, twice differentiable, with slope GAIN at zero."""
    raw = GAIN * amplitude
    high = LARGEST_AMPLITUDE * torch.tanh(raw / LARGEST_AMPLITUDE)
    low = SMALLEST_AMPLITUDE * torch.tanh(raw / SMALLEST_AMPLITUDE)
    return torch.where(raw > 0, high, low)
