"""Markov chains on the model's own density p(x), for a module whose batches come from elsewhere."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.sampling.adaptation import adapt_log_width
from lightning_vfe.sampling.metropolis import metropolis
from lightning_vfe.sampling.proposals import ChainState, GaussianProposal, LogProb
from lightning_vfe.sampling.random import WalkerRandom


class ModelChains:
    """W Metropolis chains that follow a density while its parameters change.

    Args:
        cell: the periodic cell.
        start: first positions in bohr. # (W, N, 3)
        seed: of the chains.
    """

    def __init__(self, cell: PeriodicCell, start: Tensor, seed: int) -> None:
        self.cell = cell
        self.positions = start
        self.log_width = torch.full((), math.log(0.1), dtype=start.dtype, device=start.device)
        self._random = WalkerRandom(range(1), seed, start.device)
        self._rule = GaussianProposal()

    def advance(self, log_prob: LogProb, num_steps: int, adapt: bool) -> ChainState:
        """Move by num_steps steps of ln p, (W, N, 3) -> (W,), adapting the width of the moves or not."""
        state = self._rule.evaluate(log_prob, self.positions)
        width = self.log_width.exp()
        state, accepted = metropolis(log_prob, state, self._rule, width, num_steps, self._random, self.cell.wrap)
        if adapt:
            acceptance = accepted.double().mean() / num_steps
            limits = math.log(1e-3), math.log(self.cell.length / 2)
            self.log_width = adapt_log_width(self.log_width, acceptance, self._rule.target_acceptance, 1.0, *limits)
        self.positions = state.positions
        return state

    def state_dict(self) -> dict[str, Any]:
        """Positions, width and random numbers."""
        return {"positions": self.positions, "log_width": self.log_width, "random": self._random.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where other chains stood."""
        self.positions = state["positions"].to(self.positions)
        self.log_width = state["log_width"].to(self.log_width)
        self._random.load_state_dict(state["random"])
