"""What a step of the flow gives: displacements and their Jacobian."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Jet(NamedTuple):
    """Values of all atoms and, where it is wanted, their Jacobian with respect to all coordinates."""

    value: Tensor  # (W, N, 3)
    jacobian: Tensor | None = None  # (W, N, 3, 3 N)


Displacement = Callable[[Tensor, bool], Jet]
"""The map of a step at given state points: Delta and, where the last argument says so, its Jacobian, of positions
(W, N, 3). Both are in units of the edge of the cell."""
