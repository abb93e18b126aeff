"""Equivariant functions of the relative vectors of a pair of atoms, summed over images, with their gradients."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch
from e3nn import o3
from torch import Tensor, nn

from lightning_vfe.models.flow.edges import SMALLEST_PRODUCT, Edges, sum_images
from lightning_vfe.physics.cell import PeriodicCell

# Length, in units of rs, below which the direction of a relative vector fades out (q^-l S_l is linear in r for l = 1).
# Fields that vary on the scale of the core, not inside it, train as well and stay further from folding space.
CORE_LENGTH = 0.5


class PairFunctions(NamedTuple):
    """T_ij[lm, b] = sum over the images r of x_j - x_i of A_lm(r) R_b(r^2), all pairs of a receiver i and a sender j.

    The functions k = (lm, b) are in one axis.
    """

    values: Tensor  # (W, N_i, N_j, K)
    gradients: Tensor | None = None
    """d T_ij / d x_j in units of 1 / L with x_i fixed, as if j and i were different atoms; where asked for.
    # (W, N_i, N_j, 3, K)"""


class EdgeBasis(nn.Module):
    """phi_{lm,b}(r) = q^-l S_lm(r) R_b(r^2) of the edges r = x_j - x_i + L n, summed over n.

    S_lm are the solid harmonics of e3nn (component normalisation), q = sqrt(r^2 + epsilon^2), and

        R_b(r^2) = exp[-(q - mu_b)^2 / (2 sigma^2)] (1 - r^2 / r_c^2)^3.

    Everything is a polynomial in r times a smooth function of r^2: infinitely smooth as two atoms meet. The last factor
    makes value, first and second derivatives vanish at the cutoff.

    All harmonics up to l = 2 are sums of squares of linear functions of u = r / q, see `_quadratic_forms`. Those of
    higher l are made of products with u: from Euler's theorem, S_l = (1/l) r . grad S_l, and grad S_l is made of
    S_(l-1).

    Args:
        cell: the periodic cell in units of rs, as are all lengths here.
        lmax: largest l, at least 1.
        num_radial: number of functions R_b, with centres evenly spaced from 0 to r_c.
        cutoff: r_c.
    """

    centres: Tensor
    degrees: Tensor
    ladder: Tensor
    zero: Tensor
    squares: Tensor
    at_zero: Tensor
    forms: Tensor
    offsets: Tensor
    harmonics: Tensor

    def __init__(self, cell: PeriodicCell, lmax: int, num_radial: int, cutoff: float) -> None:
        super().__init__()
        self.lmax, self.num_radial, self.length = lmax, num_radial, cell.length
        self.edges = Edges(cell, cutoff)
        self.epsilon = CORE_LENGTH
        self.width = cutoff / max(num_radial - 1, 1)
        self.num_components = (lmax + 1) ** 2
        # (q / sigma)^2 and 1 - r^2 / r_c^2 from the squares of the components of r / L, and both at r = 0.
        squares = torch.tensor([self.width**-2, -(cutoff**-2)], dtype=torch.float64) * cell.length**2
        roots = self.edges.roots_at_zero()
        at_zero = torch.stack([torch.full_like(roots, (self.epsilon / self.width) ** 2), roots], dim=-1)
        ladder = _gradient_ladder(max(lmax, 2))
        forms, harmonics = _quadratic_forms(ladder)
        size = self.num_components
        # The harmonics are linear in the squares, of which there may be enough for a product of matrices where there
        # are too few harmonics.
        products = self.edges.num_images * num_radial
        self.sums_forms = lmax <= 2 and products * size < SMALLEST_PRODUCT <= products * forms.shape[1]
        constants = {
            "centres": torch.linspace(0.0, cutoff, num_radial, dtype=torch.float64) / self.width,
            "squares": squares.repeat(1, 3, 1),
            "at_zero": at_zero.view(1, -1, 2),
            "forms": forms[:3] * (cell.length / self.width),
            "offsets": forms[3],
            "harmonics": harmonics[:, :size],
            "zero": torch.zeros(()),
            "ladder": ladder[:size, :, :size].flatten(1) * (cell.length / self.width),
            "degrees": torch.tensor([math.isqrt(component) for component in range(size)]),
        }
        for degree in range(3, lmax + 1):
            lower, upper = slice((degree - 1) ** 2, degree**2), slice(degree**2, (degree + 1) ** 2)
            step = ladder[lower, :, upper] * (cell.length / self.width / degree)
            constants[f"step_{degree}"] = step.flatten(0, 1)
        for name, constant in constants.items():
            self.register_buffer(name, constant.to(torch.get_default_dtype()), persistent=False)

    def forward(self, positions: Tensor, with_gradient: bool) -> PairFunctions:
        """Evaluate the functions of all pairs.

        Args:
            positions: in units of L.  # (W, N, 3)
            with_gradient: also give the gradients.
        """
        vectors = self.edges(positions)  # (W, N_i, N_j, M, 3)
        squared = vectors.square().view(len(vectors), -1, 3)
        both = torch.baddbmm(self.at_zero, squared, self.squares.expand(len(vectors), -1, -1))
        distance, inside = both.view(*vectors.shape[:-1], 2).split(1, dim=-1)
        distance, inside = distance.sqrt(), inside.relu()  # q / sigma, and the root of the taper
        offset = distance - self.centres
        gaussian = torch.addcmul(self.zero, offset, offset, value=-0.5).exp()
        directions = vectors / distance  # u, in units of sigma / L
        forms = torch.addmm(self.offsets, directions.view(-1, 3), self.forms).square().view(*vectors.shape[:-1], -1)
        if not with_gradient:
            return PairFunctions(self._values(forms, directions, gaussian * inside**3))
        # A depends on u, and d u_e / d r_d = (delta_ed - u_e u_d) / q. R depends on q and on the taper; its slope is
        # (q / r) dR/dr, up to a factor -1 / sigma.
        squared = inside.square()
        gaussian = gaussian * squared
        radial = gaussian * inside
        slope = gaussian * torch.add(inside * offset, distance, alpha=6.0 * (self.width / self.edges.cutoff) ** 2)
        angular = self._harmonics(forms, directions)
        along_edge = directions.unsqueeze(-1) * angular.unsqueeze(-2)  # (..., 3, lm)
        factor = -((self.length / self.width) ** 2)
        angular_gradient = torch.mm(angular.view(-1, self.num_components), self.ladder).view(along_edge.shape)
        angular_gradient = torch.addcmul(angular_gradient, along_edge, self.degrees, value=factor)
        gradients = sum_images(angular_gradient.flatten(-2), radial / distance)
        gradients = sum_images(along_edge.flatten(-2), slope, gradients, factor)
        return PairFunctions(self._values(forms, directions, radial), gradients.view(*vectors.shape[:3], 3, -1))

    def _values(self, forms: Tensor, directions: Tensor, radial: Tensor) -> Tensor:
        """T, from the squares of the linear functions of the edges, and R."""
        if self.sums_forms:
            summed = sum_images(forms, radial).flatten(0, 2)
            values = torch.bmm(self.harmonics.T.expand(len(summed), -1, -1), summed)
        else:
            values = sum_images(self._harmonics(forms, directions), radial)
        return values.view(*radial.shape[:3], -1)

    def _harmonics(self, forms: Tensor, directions: Tensor) -> Tensor:
        """A_lm of the edges.  # (..., F), (..., 3) -> (..., (lmax + 1)^2)"""
        angular = torch.mm(forms.view(-1, forms.shape[-1]), self.harmonics).view(*forms.shape[:-1], -1)
        for degree in range(3, self.lmax + 1):
            products = angular[..., (degree - 1) ** 2 :].unsqueeze(-1) * directions.unsqueeze(-2)
            angular = torch.cat([angular, products.flatten(-2) @ getattr(self, f"step_{degree}")], dim=-1)
        return angular


def _gradient_ladder(lmax: int) -> Tensor:
    """From all solid harmonics to all their gradients: d S_lm / d r_d = sum_n S_(l-1)n ladder[n, d, m].

    The gradient of a harmonic polynomial of degree l is made of those of degree l - 1, coupled by a Wigner 3j symbol.
    For the component normalisation, |S_l|^2 = (2 l + 1) r^(2l), the factor is (2 l + 1) sqrt(l).

    Returns:
        float64, with all l up to lmax on both sides.  # ((lmax + 1)^2, 3, (lmax + 1)^2)
    """
    size = (lmax + 1) ** 2
    ladder = torch.zeros(size, 3, size, dtype=torch.float64)
    for degree in range(1, lmax + 1):
        coupling = o3.wigner_3j(degree, degree - 1, 1, dtype=torch.float64)  # (m, n, d)
        lower, upper = slice((degree - 1) ** 2, degree**2), slice(degree**2, (degree + 1) ** 2)
        ladder[lower, :, upper] = (2 * degree + 1) * math.sqrt(degree) * coupling.permute(1, 2, 0)
    return ladder


def _quadratic_forms(ladder: Tensor) -> tuple[Tensor, Tensor]:
    """Linear functions of u whose squares make up all harmonics up to l = 2.

    They are u_d + u_e, u_d - u_e, u_d + 1, u_d - 1 for all components, and 1, because

        u_d u_e = [(u_d + u_e)^2 - (u_d - u_e)^2] / 4,    u_d^2 = [(u_d + 1)^2 + (u_d - 1)^2] / 2 - 1.

    Squares are several times cheaper than products of all components with each other.

    Args:
        ladder: of `_gradient_ladder`, up to l = 2.

    Returns:
        Coefficients of (u, 1) in the functions  # (4, 13), and the harmonics of their squares  # (13, 9)
    """
    units = torch.eye(4, dtype=torch.float64)
    pairs = list(itertools.combinations(range(4), 2))
    columns = [units[d] + sign * units[e] for d, e in pairs for sign in (1.0, -1.0)] + [units[3]]
    products = torch.zeros(4, 4, len(columns), dtype=torch.float64)
    for place, (d, e) in enumerate(pairs):
        products[d, e, 2 * place : 2 * place + 2] = products[e, d, 2 * place : 2 * place + 2] = torch.tensor(
            [0.25, -0.25]
        )
        if e == 3:
            products[d, d, 2 * place : 2 * place + 2] = 0.5
            products[d, d, -1] = -1.0
    products[3, 3, -1] = 1.0
    # S_0 = 1, S_1 and S_2 by Euler's theorem.
    first = ladder[0, :, 1:4]  # (d, m)
    second = torch.einsum("dn,nem->dem", first, ladder[1:4, :, 4:9]) / 2.0
    parts = [
        products[3, 3].unsqueeze(-1),
        products[:3, 3].T @ first,
        torch.einsum("def,dem->fm", products[:3, :3], second),
    ]
    return torch.stack(columns, dim=-1), torch.cat(parts, dim=-1)
