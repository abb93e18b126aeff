"""Equivariant functions of a relative vector, with their gradients."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from e3nn import o3
from torch import Tensor, nn

from lightning_vfe.models.flow.edges import Edges, Neighbours, squared_length
from lightning_vfe.physics.cell import PeriodicCell

# Length, in units of rs, below which the direction of a relative vector fades out (q^-l S_l is linear in r for l = 1).
# Fields that vary on the scale of the core, not inside it, train as well and stay further from folding space.
CORE_LENGTH = 0.5


class EdgeFunctions(NamedTuple):
    """Angular and radial functions of the edges of `Edges`, K slots for every atom; their products are the basis.

    The gradient of a product is angular_gradient * radial + outward * radial_slope. It is there where asked for.
    """

    angular: Tensor
    """A_lm = q^-l S_lm(r), l = 0 first. # (W, N, K, (lmax + 1)^2)"""
    radial: Tensor
    """R_b(r^2). # (W, N, K, b)"""
    angular_gradient: Tensor | None = None
    """d A_lm / d r. # (W, N, K, 3, (lmax + 1)^2)"""
    radial_slope: Tensor | None = None
    """(d R_b / d |r|) / |r|. # (W, N, K, b)"""
    outward: Tensor | None = None
    """r A_lm. # (W, N, K, 3, (lmax + 1)^2)"""


class EdgeBasis(nn.Module):
    """phi_{lm,b}(r) = q^-l S_lm(r) R_b(r^2) of the edges r = x_j - x_i + L n.

    S_lm are the solid harmonics of e3nn (component normalisation), q = sqrt(r^2 + epsilon^2), and

        R_b(r^2) = exp[-(q - mu_b)^2 / (2 sigma^2)] (1 - r^2 / r_c^2)^3.

    Everything is a polynomial in r times a smooth function of r^2: infinitely smooth as two atoms meet. The last factor
    makes value, first and second derivatives vanish at the cutoff.

    Args:
        cell: the periodic cell in units of rs, as are all lengths here.
        lmax: largest l.
        num_radial: number of functions R_b, with centres evenly spaced from 0 to r_c.
        cutoff: r_c.
    """

    centres: Tensor
    degrees: Tensor
    ladder: Tensor

    def __init__(self, cell: PeriodicCell, lmax: int, num_radial: int, cutoff: float) -> None:
        super().__init__()
        self.lmax = lmax
        self.edges = Edges(cell, cutoff)
        self.epsilon = CORE_LENGTH
        self.width = cutoff / max(num_radial - 1, 1)
        for name, constant in (
            ("centres", torch.linspace(0.0, cutoff, num_radial, dtype=torch.float64)),
            ("ladder", _gradient_ladder(lmax)),
        ):
            self.register_buffer(name, constant.to(torch.get_default_dtype()), persistent=False)
        degrees = torch.tensor([degree for degree in range(lmax + 1) for _ in range(2 * degree + 1)])
        self.register_buffer("degrees", degrees, persistent=False)

    def forward(self, positions: Tensor, with_gradient: bool) -> tuple[EdgeFunctions, Neighbours]:
        """Find all edges and evaluate the functions.

        Args:
            positions: # (W, N, 3)
            with_gradient: also give the gradients.
        """
        neighbours = self.edges(positions)
        return self._on_edges(neighbours.vectors, with_gradient), neighbours

    def _on_edges(self, vectors: Tensor, with_gradient: bool) -> EdgeFunctions:
        """The functions of single vectors and, where wanted, their gradients."""
        squared = squared_length(vectors)
        inverse = (squared + self.epsilon**2).rsqrt()  # 1/q
        # Homogeneous polynomials: q^-l S_l(r) = S_l(r / q).
        angular = o3.spherical_harmonics(list(range(self.lmax + 1)), vectors * inverse, False, "component")
        offset = (1.0 / inverse - self.centres) / self.width
        gaussian = torch.exp(-0.5 * offset.square())
        taper, taper_slope = self.edges.taper(squared)
        radial = gaussian * taper
        if not with_gradient:
            return EdgeFunctions(angular, radial)
        # d radial / d r = r * slope, because q and the taper depend on r^2 only.
        slope = gaussian * taper_slope - radial * offset * (inverse / self.width)
        outward = vectors.unsqueeze(-1) * angular.unsqueeze(-2)
        # grad A = q^-l grad S - l q^-2 r A, and q^-l S_(l-1) is q^-1 A_(l-1).
        turned = ((angular * inverse) @ self.ladder).unflatten(-1, (3, -1))
        inner = angular * (self.degrees * inverse.square())
        turned = torch.addcmul(turned, vectors.unsqueeze(-1), inner.unsqueeze(-2), value=-1.0)
        return EdgeFunctions(angular, radial, turned, slope, outward)


def _gradient_ladder(lmax: int) -> Tensor:
    """Matrix from all solid harmonics to all their gradients: d S_lm / d r_d = sum_n S_(l-1)n ladder[n, (d, m)].

    The gradient of a harmonic polynomial of degree l is made of those of degree l - 1, coupled by a Wigner 3j symbol.
    For the component normalisation, |S_l|^2 = (2 l + 1) r^(2l), the factor is (2 l + 1) sqrt(l).

    Returns:
        float64 matrix with all l up to lmax on both sides.  # ((lmax + 1)^2, 3 (lmax + 1)^2)
    """
    size = (lmax + 1) ** 2
    ladder = torch.zeros(size, 3, size, dtype=torch.float64)
    for degree in range(1, lmax + 1):
        coupling = o3.wigner_3j(degree, degree - 1, 1, dtype=torch.float64)  # (m, n, d)
        lower, upper = slice((degree - 1) ** 2, degree**2), slice(degree**2, (degree + 1) ** 2)
        ladder[lower, :, upper] = (2 * degree + 1) * math.sqrt(degree) * coupling.permute(1, 2, 0)
    return ladder.flatten(1)
