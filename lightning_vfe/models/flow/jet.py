"""What a step of the flow gives: displacements and their Jacobian."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Jet(NamedTuple):
    """Values of all atoms and, where it is wanted, their Jacobian with respect to all coordinates."""

    value: Tensor  # (W, N, 3)
    jacobian: Tensor | None = None  # (W, N, 3, 3 N)
