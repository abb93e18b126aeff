"""E(y) - E(x) from electron samples of |psi_x|^2 and |psi_y|^2 together, with the variance of the estimate."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

BISECTIONS = 60
"""Of the free-energy difference: the last one changes nothing in double precision."""


class Difference(NamedTuple):
    """An estimate of E(y) - E(x).

    Attributes:
        value: in the unit of the energies.  # (...)
        variance: of the value, estimated from the samples.  # (...)
        freedom: degrees of freedom of this variance.  # (...)
    """

    value: Tensor
    variance: Tensor
    freedom: Tensor


def energy_difference(log_ratio: Tensor, energy_x: Tensor, energy_y: Tensor) -> Difference:
    r"""E(y) - E(x) from h independent samples of |psi_x|^2 and h of |psi_y|^2, each evaluated at x and at y.

    A sample has the coordinates r at x, and r' at y by a one-to-one map. All samples together have the density
    (|psi_x(r)|^2/Z_x + |psi_y(r')|^2 J/Z_y) / 2, with which

        l = ln(|psi_y(r')|^2 J) - ln|psi_x(r)|^2,    q_y = 1 / (1 + e^(C - l)),    q_x = 1 - q_y,
        E(x) = sum q_x E_x / sum q_x,    E(y) = sum q_y E_y / sum q_y,

    and C = ln Z_y - ln Z_x from sum q_x = sum q_y = h (Bennett). No weight exceeds 1, so that the variance stays finite
    at the nodes of either wavefunction. The estimate changes its sign exactly when x and y change places; its bias is
    of order 1/h, and changes its sign too. The variance is that of the linearised estimate,

        u = 2 q_y (E_y - E(y)) - 2 q_x (E_x - E(x)) + D (2 q_x - 1),
        D = mean[q_x q_y (E_y - E(y) + E_x - E(x))] / mean[q_x q_y],

    (the last term is the error of C), from both sets: variance = (var_x[u] + var_y[u]) / 4h.

    Args:
        log_ratio: l of the samples of x (first row) and of y (second row).  # (..., 2, h)
        energy_x: E_loc at x.  # (..., 2, h)
        energy_y: E_loc at y.  # (..., 2, h)

    Source: Bennett, J. Comput. Phys. 22, 245 (1976); Shirts and Chodera, J. Chem. Phys. 129, 124105 (2008).
    """
    count = log_ratio.shape[-1]
    offset = _log_norm_ratio(log_ratio)[..., None, None]
    of_y = torch.sigmoid(log_ratio - offset)
    of_x = torch.sigmoid(offset - log_ratio)
    sums = [(share * energy).sum(dim=(-2, -1)) for share, energy in ((of_x, energy_x), (of_y, energy_y))]
    mean_x, mean_y = (total / share.sum(dim=(-2, -1)) for total, share in zip(sums, (of_x, of_y), strict=True))
    from_x, from_y = energy_x - mean_x[..., None, None], energy_y - mean_y[..., None, None]
    overlap = of_x * of_y
    smallest = torch.finfo(overlap.dtype).tiny
    slope = (overlap * (from_x + from_y)).sum(dim=(-2, -1)) / overlap.sum(dim=(-2, -1)).clamp(min=smallest)
    linear = 2.0 * (of_y * from_y - of_x * from_x) + slope[..., None, None] * (2.0 * of_x - 1.0)
    each = linear.var(dim=-1) / (4.0 * count)  # (..., 2)
    variance = each.sum(dim=-1)
    freedom = _freedom(each, torch.full_like(each, count - 1.0))
    return Difference(mean_y - mean_x, variance, freedom)


def weighted_sum(differences: Difference, weights: Tensor) -> Difference:
    """sum_t w_t (E_t(y) - E_t(x)) over independent estimates.

    Args:
        differences: one for each twist.  # (..., T)
        weights: of the twists.  # (T,)
    """
    each = weights.square() * differences.variance
    value = (weights * differences.value).sum(dim=-1)
    return Difference(value, each.sum(dim=-1), _freedom(each, differences.freedom))


def _log_norm_ratio(log_ratio: Tensor) -> Tensor:
    """C = ln Z_y - ln Z_x with sum q_x = sum q_y, by bisection.  # (...)"""
    flat = log_ratio.flatten(-2)
    low, high = flat.amin(dim=-1), flat.amax(dim=-1)
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        too_low = torch.sigmoid(flat - middle[..., None]).mean(dim=-1) > 0.5
        low, high = torch.where(too_low, middle, low), torch.where(too_low, high, middle)
    return 0.5 * (low + high)


def _freedom(variances: Tensor, freedoms: Tensor) -> Tensor:
    """Degrees of freedom of a sum of estimated variances; those of all together where the variances are zero.  # (...)

    Source: Satterthwaite, Biometrics Bull. 2, 110 (1946).
    """
    smallest = torch.finfo(variances.dtype).tiny
    total = variances.sum(dim=-1).square() / (variances.square() / freedoms).sum(dim=-1).clamp(min=smallest)
    return torch.where(total > 0, total, freedoms.sum(dim=-1))
