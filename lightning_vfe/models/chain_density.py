"""ln p(x) as the protons' chains see it: in their own type of numbers, or the cheap density that stands in for p(x)."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from lightning_vfe.models.proton_density import ProtonDensity


def chain_log_prob(
    density: ProtonDensity, dtype: torch.dtype | None = None, coarse: bool = False
) -> Callable[[Tensor], Tensor]:
    """ln p(x) as a function of x (W, N, 3) -> (W,), with the parameters that the density has now.

    In another type of numbers the positions are rounded to it, flow and base run in it, and the result comes back in
    the type of x: a density in its own right, whose chains are exact for it. In float32 it differs from p(x) by the
    rounding of ln p, about 1e-4 at N = 16 with the shipped potential, and less without.

    Args:
        density: p(x).
        dtype: type of numbers of the networks, for example torch.float32; None keeps that of the density.
        coarse: take `ProtonDensity.coarse_log_prob` for ln p(x).
    """
    rounded = density
    if dtype is not None and dtype != next(density.flow.parameters()).dtype:
        # Without parameters to differentiate, a gradient with respect to x costs less.
        rounded = copy.deepcopy(density).to(dtype).requires_grad_(False)
    log_prob = rounded.coarse_log_prob if coarse else rounded.log_prob
    if rounded is density:
        return log_prob
    return lambda x: log_prob(x.to(dtype)).to(x.dtype)
