"""One step of the flow, x -> x + Delta(x), as a function of positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class StepResult(NamedTuple):
    """Where a step takes all atoms and, where it is requested, how its displacement changes with all coordinates."""

    image: Tensor
    """x + Delta(x). # (W, N, 3)"""
    jacobian: Tensor | None = None
    """d Delta / d x. # (W, N, 3, 3 N)"""


Step = Callable[[Tensor, bool], StepResult]
"""A step at given state points: of positions (W, N, 3), and whether to give the Jacobian. Positions are in units of the
edge of the cell."""

StepsAt = Callable[[Tensor], list[Step]]
"""All steps of a chain in their order, at the conditions (W, NUM_CONDITIONS) of the walkers."""
