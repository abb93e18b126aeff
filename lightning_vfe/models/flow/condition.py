"""What the flow knows of a walker's state point, and how its parameters depend on it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_vfe.physics.state_point import WalkerStates

NUM_CONDITIONS = 2

Conditional = tuple[Tensor, Tensor, int]
"""A parameter (...), its derivatives by the conditions (NUM_CONDITIONS, ...), and its number of dimensions. Both may
have one more axis in front, with one set for each walker."""


def conditions(states: WalkerStates, reference: Tensor) -> Tensor:
    """ln(rs / rs_0) and ln(Gamma / Gamma_0) with the coupling Gamma = 1 / (rs kT).

    Gamma is the ratio of Coulomb energy and temperature. Both logarithms are zero at the reference.

    Args:
        states: of the walkers.  # (W,)
        reference: rs_0 in bohr and kT_0 in Ha.  # (2,)

    Returns:
        # (W, NUM_CONDITIONS)
    """
    coupling = (reference[0] * reference[1]) / (states.rs * states.kT)
    return torch.stack([states.rs / reference[0], coupling], dim=-1).log()


def conditioned(parameters: Sequence[Conditional], condition: Tensor) -> Tensor:
    """parameter + sum_k slopes_k condition_k for every walker, of several parameters at once.

    Args:
        parameters: in their order.
        condition: # (W, NUM_CONDITIONS)

    Returns:
        All parameters, flattened, one after the other.  # (W, P)
    """
    values = [_flat(parameter, ndim) for parameter, _, ndim in parameters]
    slopes = [_flat(slope, ndim) for _, slope, ndim in parameters]
    if all(value.ndim == 1 for value in values):
        return torch.addmm(torch.cat(values), condition, torch.cat(slopes, dim=-1))
    own = torch.cat([value.expand(len(condition), -1) for value in values], dim=-1)
    changes = torch.cat([slope.expand(len(condition), -1, -1) for slope in slopes], dim=-1)
    return torch.baddbmm(own.unsqueeze(1), condition.unsqueeze(1), changes).squeeze(1)


def _flat(tensor: Tensor, ndim: int) -> Tensor:
    """The last axes as one, which is new where there are none of them."""
    return tensor.flatten(-ndim) if ndim else tensor.unsqueeze(-1)
