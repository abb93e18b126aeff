"""Independent Metropolis chains with one common width of their moves, which adapts when it is told to."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.sampling.adaptation import adapt_log_width, log_width_limits
from lightning_vfe.sampling.metropolis import metropolis
from lightning_vfe.sampling.proposals import LogProb, Proposal
from lightning_vfe.sampling.random import WalkerRandom


class Chains:
    """C chains of one density, where they stand, and the width of their moves.

    Attributes:
        cell: the periodic cell.
        state: positions in [0, L) in bohr, (C, N, 3), and ln p up to a constant, (C,).
        log_width: ln of the width in bohr.  # ()

    Args:
        log_prob: ln p up to a constant, periodic, (C, N, 3) -> (C,).
        cell: the periodic cell.
        start: first positions in bohr.  # (C, N, 3)
        rule: of the moves.
        width: of the first moves in bohr.
        random: streams of random numbers, whose groups divide the chains.
    """

    def __init__(
        self, log_prob: LogProb, cell: PeriodicCell, start: Tensor, rule: Proposal, width: float, random: WalkerRandom
    ) -> None:
        self._log_prob, self.cell, self._rule, self._random = log_prob, cell, rule, random
        self.state = rule.evaluate(log_prob, start)
        self.log_width = start.new_tensor(math.log(width))

    def place(self, positions: Tensor) -> None:
        """Stand at these positions, in bohr, (C, N, 3), with ln p as its parameters are now."""
        self.state = self._rule.evaluate(self._log_prob, positions)

    def advance(self, num_steps: int, adapt: bool = False) -> float:
        """Move all chains by num_steps steps; returns the accepted fraction.

        Args:
            num_steps: number of steps.
            adapt: adapt the width afterwards; it must stay as it is while averages are taken.
        """
        self.state, accepted = metropolis(
            self._log_prob, self.state, self._rule, self.log_width.exp(), num_steps, self._random, self.cell.wrap
        )
        acceptance = accepted.double().mean() / num_steps
        if adapt:
            target, limits = self._rule.target_acceptance, log_width_limits(self.cell.length)
            self.log_width = adapt_log_width(self.log_width, acceptance, target, 1.0, *limits)
        return float(acceptance)

    def state_dict(self) -> dict[str, Any]:
        """Positions, width and random numbers."""
        return {"positions": self.state.positions, "log_width": self.log_width, "random": self._random.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where other chains stood."""
        self.place(state["positions"].to(self.state.positions))
        self.log_width = state["log_width"].to(self.log_width)
        self._random.load_state_dict(state["random"])
