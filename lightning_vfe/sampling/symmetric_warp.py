"""A space warp whose inverse is the warp back: electrons that follow their protons, with the Jacobian."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_vfe.physics.cell import PeriodicCell

NEWTON_STEPS = 7
"""For the midpoint: the error of usual moves is below 1e-12 after five. The number is fixed, so that no walker's result
depends on other walkers."""
TOLERANCE = 1e-9
"""Largest last change of a component, in units of L."""


class Warp(NamedTuple):
    """Where the electrons go.

    Attributes:
        positions: not wrapped; those that are not found stay.  # (W, B, N, 3)
        log_jacobian: ln det dr'/dr of all electrons.  # (W, B)
        found: whether the map is one to one for all electrons of a walker, and has been solved.  # (W, B)
    """

    positions: Tensor
    log_jacobian: Tensor
    found: Tensor


def symmetric_warp(cell: PeriodicCell, electrons: Tensor, protons: Tensor, displacement: Tensor) -> Warp:
    r"""Electrons r -> r' that follow protons x -> y = x + dx, by the weights at the midpoint of both,

        r' = r + sum_a w_a((r + r')/2) dx_a,    w_a(r) = d(r, (x + y)_a / 2)^-4 / sum_b d(r, (x + y)_b / 2)^-4,
        ln det dr'/dr = sum_i ln det(1 + M_i) - ln det(1 - M_i),    M = 1/2 sum_a dx_a (x) grad w_a((r + r')/2),

    with the smooth periodic distance d. The warp from y to x is its exact inverse, which the usual one, with the
    weights at the start, does not have. The equation is solved by Newton's method. All in the cell's unit of length.

    Args:
        cell: the periodic cell.
        electrons: # (W, B, N, 3)
        protons: before their move.  # (W, N, 3)
        displacement: of the protons, not wrapped.  # (W, N, 3)

    Source: Umrigar, Int. J. Quantum Chem. Symp. 23, 217 (1989), for the weights.
    """
    centres, moves = (protons + 0.5 * displacement)[:, None, None], displacement[:, None]
    one = torch.eye(3, dtype=electrons.dtype, device=electrons.device)
    shift = torch.zeros_like(electrons)
    for _ in range(NEWTON_STEPS):
        target, half = _shift(cell, electrons + 0.5 * shift, centres, moves)
        change = _solve(one - half, target - shift)
        shift = shift + change
    half = _shift(cell, electrons + 0.5 * shift, centres, moves)[1]
    forward, backward = _det(one + half), _det(one - half)
    # not a number where Newton's method has lost its way: not found
    found = (change.abs().amax(dim=-1) <= TOLERANCE * cell.length) & (forward > 0) & (backward > 0)
    log_jacobian = torch.where(found, forward / backward, torch.ones_like(forward)).log().sum(dim=-1)
    return Warp(electrons + torch.where(found[..., None], shift, 0.0), log_jacobian, found.all(dim=-1))


def _shift(cell: PeriodicCell, middle: Tensor, centres: Tensor, moves: Tensor) -> tuple[Tensor, Tensor]:
    """sum_a w_a dx_a at the midpoints (W, B, N, 3), and half its Jacobian M (W, B, N, 3, 3).

    Args:
        cell: the periodic cell.
        middle: midpoints of the electrons.  # (W, B, N, 3)
        centres: midpoints of the protons.  # (W, 1, 1, N, 3)
        moves: of the protons.  # (W, 1, N, 3)
    """
    apart = middle[..., :, None, :] - centres  # (W, B, N, N, 3)
    # the small constant keeps the weights finite where an electron sits on a proton
    squared = cell.smooth_distance(apart).square() + (1e-6 * cell.length) ** 2
    weight = squared**-2
    weight = weight / weight.sum(dim=-1, keepdim=True)
    slope = (cell.length / torch.pi) * torch.sin(apart * (2.0 * torch.pi / cell.length))  # of the squared distance
    gradient = weight[..., None] * (-2.0 / squared[..., None] * slope)  # w_a grad ln d_a^-4
    shift = weight @ moves
    # grad w_a = w_a (g_a - sum_b w_b g_b) with g_a = grad ln d_a^-4
    own = moves.unsqueeze(-3).transpose(-1, -2) @ gradient
    return shift, 0.5 * (own - shift[..., None] * gradient.sum(dim=-2)[..., None, :])


def _solve(matrix: Tensor, vector: Tensor) -> Tensor:
    """Solution (..., 3) of matrices (..., 3, 3), by Cramer's rule."""
    first, second, third = matrix.unbind(dim=-1)
    cofactors = [torch.linalg.cross(*pair) for pair in ((second, third), (third, first), (first, second))]
    inverse = torch.stack(cofactors, dim=-2) / (first * cofactors[0]).sum(dim=-1)[..., None, None]
    solution: Tensor = (inverse @ vector[..., None]).squeeze(-1)
    return solution


def _det(matrix: Tensor) -> Tensor:
    """Determinant of matrices (..., 3, 3), by its formula."""
    first, second, third = matrix.unbind(dim=-2)
    determinant: Tensor = (first * torch.linalg.cross(second, third)).sum(dim=-1)
    return determinant
