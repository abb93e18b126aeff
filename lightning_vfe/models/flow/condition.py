"""What the flow knows of a walker's state point, and how its parameters depend on it."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_vfe.physics.state_point import WalkerStates

NUM_CONDITIONS = 2


def conditions(states: WalkerStates, reference: Tensor) -> Tensor:
    """ln(rs / rs_0) and ln(Gamma / Gamma_0) with the coupling Gamma = 1 / (rs kT), the ratio of Coulomb energy and
    temperature: both are zero at the reference.

    Args:
        states: of the walkers.  # (W,)
        reference: rs_0 in bohr and kT_0 in Ha.  # (2,)

    Returns:
        # (W, NUM_CONDITIONS)
    """
    density = torch.log(states.rs / reference[0])
    temperature = torch.log(states.kT / reference[1])
    return torch.stack([density, -density - temperature], dim=-1)


def conditioned(parameter: Tensor, slopes: Tensor, condition: Tensor, ndim: int) -> Tensor:
    """parameter + sum_k slopes_k condition_k for every walker.

    Args:
        parameter: with `ndim` dimensions, or one set for each walker.  # (...) or (W, ...)
        slopes: its derivatives by the conditions.  # (NUM_CONDITIONS, ...) or (W, NUM_CONDITIONS, ...)
        condition: # (W, NUM_CONDITIONS)
        ndim: dimensions of one set of the parameter.

    Returns:
        # (W, ...)
    """
    weights = condition.view(*condition.shape, *(1,) * ndim)
    return parameter + (weights * slopes).sum(1)
