"""What a step of the flow gives: displacements and their Jacobian."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Displacement(NamedTuple):
    """Of all atoms and, where it is wanted, its Jacobian with respect to all coordinates."""

    value: Tensor  # (W, N, 3)
    jacobian: Tensor | None = None  # (W, N, 3, 3 N)


Step = Callable[[Tensor, bool], Displacement]
"""The map x -> Delta(x) of a step at given state points, of positions (W, N, 3) and whether to give the Jacobian.
Positions and displacements are in units of the edge of the cell."""

StepsAt = Callable[[Tensor], list[Step]]
"""All steps of a chain in their order, at the conditions (W, NUM_CONDITIONS) of the walkers."""
