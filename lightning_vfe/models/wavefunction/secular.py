"""Eigenvectors of many diagonal matrices with a rank-one update, in a fixed number of operations."""

from __future__ import annotations

import torch
from torch import Tensor

ITERATIONS = 5
POINTS = 4
"""Points of one iteration, from the lower to the upper bound of a root. The roots are then exact to rounding."""


def rank_one_update(levels: Tensor, update: Tensor) -> tuple[Tensor, Tensor]:
    r"""Eigenvalues (..., n) and eigenvectors (..., n, n), one in each row, of diag(d) + v v^T.

    The levels d (..., n) ascend and differ by more than rounding; no v_j (..., n) is zero. The eigenvalues lambda_i are
    the roots of the secular equation 1 + sum_j v_j^2 / (d_j - lambda) = 0: one in every interval d_i < lambda < d_i+1,
    the last one above d_n. The eigenvectors are v_j / (d_j - lambda_i). They use those v for which the computed roots
    are exact (Loewner's formula) and so are orthogonal however close the levels are (Gu and Eisenstat, SIAM J. Matrix
    Anal. Appl. 16, 172 (1995)).
    """
    distances, roots = _secular_roots(levels, update.square())
    above = torch.cat([levels[..., 1:], levels[..., -1:]], dim=-1)
    index = torch.arange(levels.shape[-1], device=levels.device)
    # v_j^2 = prod_i (lambda_i - d_j) / prod_(i != j) (d_i - d_j), as a product of ratios between 0 and 1.
    ends = torch.where(index.unsqueeze(-1) < index, levels.unsqueeze(-1), above.unsqueeze(-1)) - levels.unsqueeze(-2)
    ends[..., -1, :] = 1.0  # (..., n, n); the last root has no partner
    exact = torch.copysign((distances / ends).prod(dim=-2).abs().sqrt(), update)
    vectors = exact.unsqueeze(-2) / distances
    return roots, vectors / torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)


def _secular_roots(levels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """d_j - lambda_i (..., n, n) with a small relative error, and lambda_i (..., n), for d and w = v^2 (..., n).

    The unknown x is the distance of a root from the nearer end of its interval. Where that is the upper end, the
    interval is mirrored, so that 0 < x <= gap / 2.
    """
    index = torch.arange(levels.shape[-1], device=levels.device)
    # The last root lies in the lower half of an interval of 2 sum_j w_j.
    total = weights.sum(dim=-1, keepdim=True)
    gap = torch.cat([levels.diff(dim=-1), 2.0 * total], dim=-1)
    half = 0.5 * gap
    middle = (levels.unsqueeze(-2) - levels.unsqueeze(-1)) - half.unsqueeze(-1)
    mirrored = (1.0 + (weights.unsqueeze(-2) / middle).sum(dim=-1) < 0.0) & (index < len(index) - 1)
    sign = 1.0 - 2.0 * mirrored.to(levels.dtype)
    nearest = index + mirrored
    end, own = torch.gather(levels, -1, nearest), torch.gather(weights, -1, nearest)
    poles = sign.unsqueeze(-1) * (levels.unsqueeze(-2) - end.unsqueeze(-1))  # (..., n, n)
    others = torch.where(index == nearest.unsqueeze(-1), 0.0, weights.unsqueeze(-2))
    below = (poles < 0.0).to(poles.dtype)
    fractions = torch.linspace(0.0, 1.0, POINTS, dtype=levels.dtype, device=levels.device)
    fractions = fractions.view(-1, *(1 for _ in levels.shape))
    # w / x = sign + sum_j w_j / (p_j - x) is less than 1 + sum_j w_j / half.
    low, high, x = own * half / (half + total), half, half.unsqueeze(0)
    for iteration in range(ITERATIONS + 1):
        if iteration > 0:
            x = torch.lerp(low.log(), high.log(), fractions).exp_()
        new_low, new_high = _bounds(x, sign, poles, others, below, own, gap)
        high = torch.minimum(high, new_high)
        low = torch.minimum(torch.maximum(low, new_low), high)
    return sign.unsqueeze(-1) * (poles - high.unsqueeze(-1)), torch.addcmul(end, sign, high)


def _bounds(
    x: Tensor, sign: Tensor, poles: Tensor, others: Tensor, below: Tensor, own: Tensor, gap: Tensor
) -> tuple[Tensor, Tensor]:
    """Two numbers (..., n) between which the root of F lies, from F and F' at any points x (points, ..., n).

    F(x) = sign - w / x + sum_j w_j / (p_j - x), with poles p_j < 0 (`below`) and p_j >= gap. A function that touches F
    at x and lies above it has a lower root: sign - w / x + a + b / (gap - x). A function that touches F and lies below
    it has a higher root: -b / x for w and the lower poles, a tangent for the upper ones. Both bounds converge
    quadratically.
    """
    denominators = poles - x.unsqueeze(-1)  # (points, ..., n, n)
    terms = others / denominators
    value = sign + terms.sum(dim=-1)
    terms = terms / denominators
    slope = terms.sum(dim=-1)
    slope_below = (terms * below).sum(dim=-1)
    slope_above = (slope - slope_below).clamp_(min=0.0)
    part, change = slope * (gap - x), slope_below * x
    # Both are roots of a x^2 + 2 b x - c = 0.
    a = torch.stack([part - value, slope_above])
    b_low = torch.addcmul(own, value, gap).addcmul_(part, x, value=-1.0)
    b_high = (value + change).addcmul_(slope_above, x, value=-1.0)
    b = 0.5 * torch.stack([b_low, b_high])
    c = torch.stack([(own * gap).expand_as(x), torch.addcmul(own, change, x)])
    larger = b + torch.copysign(torch.addcmul(b * b, a, c).clamp_(min=0.0).sqrt_(), b)
    roots = torch.where(b > 0.0, c / larger, -larger / a)
    return roots[0].amax(dim=0), roots[1].amin(dim=0)
