"""What the flow knows of a walker's state point, and how its parameters depend on it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_vfe.errors import SettingError
from lightning_vfe.physics.state_point import StatePoint, WalkerStates

NUM_CONDITIONS = 2

Conditional = tuple[Tensor, Tensor, int]
"""A parameter (...), its derivatives by the conditions (NUM_CONDITIONS, ...), and its number of dimensions. Both may
have one more axis in front, with one set for each walker."""


# From (ln(rs / rs_0), ln(kT / kT_0)) to the conditions.
COMBINATIONS = ((1.0, -1.0), (0.0, -1.0))


def checked_reference(reference: StatePoint) -> Tensor:
    """rs_0 in bohr and kT_0 in Ha.  # (2,)

    Raises:
        ValueError: the temperature is zero.
    """
    if not reference.temperature_kelvin > 0:
        raise SettingError(
            "temperature_kelvin",
            reference.temperature_kelvin,
            "must be positive: the flow sees the coupling 1 / (rs kT)",
            "give StatePoint(rs, 6000.0) for example",
        )
    return torch.tensor([float(reference.rs), float(reference.kT)])


def conditions(states: WalkerStates, reference: Tensor, combinations: Tensor) -> Tensor:
    """ln(rs / rs_0) and ln(Gamma / Gamma_0) with the coupling Gamma = 1 / (rs kT).

    Gamma is the ratio of Coulomb energy and temperature. Both logarithms are zero at the reference.

    Args:
        states: of the walkers.  # (W,)
        reference: from `checked_reference`.  # (2,)
        combinations: `COMBINATIONS`.  # (2, NUM_CONDITIONS)

    Returns:
        # (W, NUM_CONDITIONS)
    """
    return torch.mm((torch.stack([states.rs, states.kT], dim=-1) / reference).log(), combinations)


def conditioned(parameters: Sequence[Conditional], condition: Tensor) -> Tensor:
    """parameter + sum_k slopes_k condition_k for every walker, of several parameters at once.

    Args:
        parameters: in their order.
        condition: # (W, NUM_CONDITIONS)

    Returns:
        All parameters, flattened, one after the other.  # (W, P)
    """
    pieces = [_flat(parameter, ndim) for parameter, _, ndim in parameters]
    slopes = [_flat(slope, ndim) for _, slope, ndim in parameters]
    pieces += [slope[..., k, :] for k in range(NUM_CONDITIONS) for slope in slopes]
    by_walker = any(piece.ndim > 1 for piece in pieces)
    if by_walker:
        pieces = [piece.expand(len(condition), -1) for piece in pieces]
    rows = torch.cat(pieces, dim=-1).unflatten(-1, (1 + NUM_CONDITIONS, -1))
    if by_walker:
        return torch.baddbmm(rows[:, :1], condition.unsqueeze(1), rows[:, 1:]).squeeze(1)
    return torch.addmm(rows[0], condition, rows[1:])


def _flat(tensor: Tensor, ndim: int) -> Tensor:
    """The last axes as one, which is new where there are none of them."""
    return tensor.flatten(-ndim) if ndim else tensor.unsqueeze(-1)
