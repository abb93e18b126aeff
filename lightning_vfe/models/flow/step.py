"""One step of the flow, x -> x + Delta(x), as a function of positions, and what all its blocks have in common."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from lightning_vfe.models.flow.condition import Conditional, conditioned


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


class FlowBlock(nn.Module, abc.ABC):
    """A block of the flow, x -> x + Delta(x), whose parameters depend on the state point.

    Attributes:
        length: edge of the cell in units of rs.
    """

    length: float

    @abc.abstractmethod
    def conditional(self) -> list[Conditional]:
        """The parameters that depend on the state point."""

    @abc.abstractmethod
    def prepared(self, values: Tensor) -> Step:
        """The step for several positions, in units of L.

        Args:
            values: of `conditional` at the state points of the walkers.  # (W, P)
        """

    def forward(self, positions: Tensor, condition: Tensor, with_jacobian: bool) -> StepResult:
        """The step in units of rs.

        Args:
            positions: # (W, N, 3)
            condition: of the state points.  # (W, NUM_CONDITIONS)
            with_jacobian: also carry the Jacobian.

        Returns:
            x + Delta  # (W, N, 3), and d Delta / d x  # (W, N, 3, 3 N)
        """
        found = self.prepared(conditioned(self.conditional(), condition))(positions / self.length, with_jacobian)
        return StepResult(self.length * found.image, found.jacobian)
