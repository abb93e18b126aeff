"""State points of walkers, for tests."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.state_point import StatePoint, WalkerStates
from lightning_vfe.physics.strata import Strata
from lightning_vfe.physics.twists import twist_grid

KELVIN = 6000.0


def states_at(
    cell: PeriodicCell, *leading: int, twist: Sequence[float] | Tensor = (0.0, 0.0, 0.0), kelvin: float = KELVIN
) -> WalkerStates:
    """The density of a cell, a temperature and a twist for walkers with these leading dimensions; twists (..., 3) bring
    their own.
    """
    twist = torch.as_tensor(twist, dtype=torch.get_default_dtype())
    return WalkerStates.at(cell.rs, kelvin, twist.expand(*leading, 3) if leading else twist)


def strata_at(cell: PeriodicCell, twists: object = (1, 1, 1), kelvin: float = KELVIN) -> Strata:
    """The strata of one state point."""
    return Strata((StatePoint(cell.rs, kelvin),), twist_grid(twists))  # type: ignore[arg-type]
