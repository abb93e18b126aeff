"""Functions of the distance: what switches a term off at its cutoff, and SchNet's Gaussian basis."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def quintic_switch(distance: Tensor, start: float, end: float) -> Tensor:
    """1 - 10 x^3 + 15 x^4 - 6 x^5 with x = (r - start) / (end - start): one below start, zero beyond end, C2 at both.

    Args:
        distance: r in bohr.  # (...)
        start: where it begins to fall, in bohr.
        end: where it arrives at zero, in bohr.
    """
    x = ((distance - start) / (end - start)).clamp(0.0, 1.0)
    return 1.0 - x**3 * (10.0 - 15.0 * x + 6.0 * x.square())


def cosine_switch(distance: Tensor, end: float) -> Tensor:
    """(1 + cos(pi r / end)) / 2 up to r = end, then zero: SchNetPack's cutoff, only C1 at its end.

    Args:
        distance: r in bohr.  # (...)
        end: where it arrives at zero, in bohr.
    """
    return 0.5 + 0.5 * torch.cos(distance.clamp(max=end) * (math.pi / end))


class GaussianBasis(nn.Module):
    """exp(-(r - mu_k)^2 / 2 w_k^2) with evenly spaced centres mu_k; w_k is their spacing.

    SchNetPack's GaussianRBF, which can be built in float32 only. The buffers have its names.

    Args:
        count: number of Gaussians, two at least.
        start: first centre in bohr.
        end: last centre in bohr.
    """

    offsets: Tensor
    widths: Tensor

    def __init__(self, count: int, start: float, end: float) -> None:
        super().__init__()
        self.n_rbf = count
        offsets = torch.linspace(start, end, count)
        self.register_buffer("offsets", offsets)
        self.register_buffer("widths", torch.full_like(offsets, (end - start) / (count - 1)))

    def forward(self, distance: Tensor) -> Tensor:
        """Basis functions (..., K) of distances (...) in bohr."""
        return torch.exp(-0.5 * ((distance.unsqueeze(-1) - self.offsets) / self.widths).square())
