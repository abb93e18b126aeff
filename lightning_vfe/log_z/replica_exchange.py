"""Markov chains of all windows of a path at once, with swaps between neighbouring windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_vfe.log_z.path import coefficients
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.sampling.adaptation import adapt_log_width, log_width_limits
from lightning_vfe.sampling.metropolis import metropolis
from lightning_vfe.sampling.proposals import Proposal
from lightning_vfe.sampling.random import WalkerRandom

Energy = Callable[[Tensor], Tensor]
"""Potential energy in Ha of the whole cell: positions (..., N, 3) in bohr -> (...)."""

# Stands for the infinite energy of particles at one place: its weight is zero wherever its coefficient is not.
_INFINITE = 1e12
_STATE = ("positions", "log_width", "_swap_parity", "_moves", "_sweeps", "_swaps_tried", "_swaps_made")


class ReplicaExchange:
    """K windows with C chains each, all moved together; chain c of every window belongs to ladder c.

    Ladders never meet, so they are C independent copies of the whole computation: the spread over them is an error
    bar without any assumption about correlations in time or between windows.

    Args:
        energies: E_1, ..., E_M.
        cell: the periodic cell.
        kT: in Ha.
        points: windows along the path.  # (K,)
        positions: starts in bohr.  # (K, C, N, 3)
        log_width: ln of the moves' width in bohr.  # (K,)
        proposal: the rule of the moves.
        random: one group of random numbers for each window.
        stages: the path's potentials as sums of the energies, so that several potentials share the cost of one; None
            takes the energies themselves.  # (S, M)
    """

    def __init__(
        self,
        energies: Sequence[Energy],
        cell: PeriodicCell,
        kT: float,
        points: np.ndarray,
        positions: Tensor,
        log_width: Tensor,
        proposal: Proposal,
        random: WalkerRandom,
        stages: Tensor | None = None,
    ) -> None:
        self.energies = list(energies)
        self.cell, self.kT, self.points = cell, kT, points
        self.positions, self.log_width = positions, log_width
        self.proposal, self.random = proposal, random
        self.coefficients = coefficients(points).to(positions)  # (K, S)
        identity = torch.eye(len(self.energies), dtype=torch.float64)
        self.stages = (identity if stages is None else stages.double()).to(positions.device)  # (S, M)
        self._of_energies = self.coefficients @ self.stages.to(positions)  # (K, M)
        self._coupled = [torch.nonzero(column).flatten() for column in self._of_energies.unbind(dim=1)]
        self._swap_parity = 0
        self.reset_counts()

    def reset_counts(self) -> None:
        """Count the accepted moves and the swaps from here on."""
        num_windows = len(self.points)
        self._moves = torch.zeros(num_windows, dtype=torch.float64)
        self._sweeps = 0
        self._swaps_tried = torch.zeros(num_windows - 1, dtype=torch.float64)
        self._swaps_made = torch.zeros(num_windows - 1, dtype=torch.float64)

    def state_dict(self) -> dict[str, Any]:
        """Where the chains stand, with their random numbers and counts."""
        kept = {name: getattr(self, name) for name in _STATE}
        return kept | {"random": self.random.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where the chains of the same windows stood."""
        for name in _STATE:
            value = state[name]
            setattr(self, name, value.to(self.positions.device) if name in ("positions", "log_width") else value)
        self.random.load_state_dict(state["random"])

    @property
    def acceptance(self) -> Tensor:
        """Accepted fraction of each window's moves since reset_counts  # (K,)."""
        return self._moves / max(1, self._sweeps)

    @property
    def swap_acceptance(self) -> Tensor:
        """Accepted fraction of the swaps of windows k and k + 1 since reset_counts  # (K - 1,)."""
        return self._swaps_made / self._swaps_tried.clamp(min=1)

    def log_prob(self, positions: Tensor) -> Tensor:
        """-E(z)/kT of every window at its own positions, (K, C, N, 3) -> (K, C).

        A potential is evaluated only for windows that it takes part in: the expensive end of the path costs nothing at
        its cheap end.
        """
        # The ideal gas has no energy, but autograd needs a result that depends on the positions.
        total = 0.0 * positions.sum(dim=(-2, -1))
        for energy, rows, coefficient in zip(
            self.energies, self._coupled, self._of_energies.unbind(dim=1), strict=True
        ):
            own = energy(positions[rows]) * (-coefficient[rows] / self.kT)[:, None]
            total = total.index_add(0, rows, own.to(total.dtype))
        return total

    def sweep(self, num_steps: int, adapt: bool) -> Tensor:
        """num_steps Metropolis steps of all chains, then swaps of neighbouring windows.

        Args:
            num_steps: number of steps.
            adapt: adapt the widths to the rule's acceptance; False keeps detailed balance, as measuring must.

        Returns:
            E_1/kT, ..., E_S/kT of the samples before the swaps, in float64.  # (K, C, S)

        Raises:
            FloatingPointError: an energy is not a number, or minus infinity.
        """
        width = self.log_width.exp()[:, None, None, None]
        state = self.proposal.evaluate(self.log_prob, self.positions)
        state, accepted = metropolis(self.log_prob, state, self.proposal, width, num_steps, self.random, self.cell.wrap)
        self.positions = state.positions
        acceptance = accepted.to(width.dtype).mean(dim=1) / num_steps
        self._moves += acceptance.double().cpu()
        self._sweeps += 1
        if adapt:
            target, limits = self.proposal.target_acceptance, log_width_limits(self.cell.length)
            self.log_width = adapt_log_width(self.log_width, acceptance, target, 1.0, *limits)
        reduced = self._reduced_energies()
        self._swap(reduced)
        return reduced

    @torch.no_grad()
    def _reduced_energies(self) -> Tensor:
        """All E_m/kT of all samples  # (K, C, S)."""
        reduced = torch.stack([energy(self.positions) for energy in self.energies], dim=-1) / self.kT
        if torch.isnan(reduced).any() or (reduced == -torch.inf).any():
            raise FloatingPointError(
                "the potential is not a number, or minus infinity, at a sampled configuration; ln Z does not exist"
            )
        return reduced.to(torch.float64).clamp(max=_INFINITE) @ self.stages.T

    def _swap(self, reduced: Tensor) -> None:
        """Exchange the positions of windows k, k + 1 in each ladder, for even and odd k in turn, with probability

            min(1, exp[(c_k - c_{k+1}) . (E(z_k) - E(z_{k+1})) / kT]).

        The ideal gas forgets its past at once and hands fresh configurations up the ladder.

        Source: Swendsen and Wang, Phys. Rev. Lett. 57, 2607 (1986).
        """
        uniform = self.random.uniform(reduced.shape[:2], dtype=torch.float64)
        lower = torch.arange(self._swap_parity, len(self.points) - 1, 2, device=reduced.device)
        self._swap_parity = 1 - self._swap_parity
        difference = (self.coefficients[lower] - self.coefficients[lower + 1]).to(reduced)  # (M, S)
        log_ratio = (difference[:, None] * (reduced[lower] - reduced[lower + 1])).sum(dim=-1)  # (M, C)
        accept = torch.log(uniform[lower]) < log_ratio
        below, above = self.positions[lower], self.positions[lower + 1]
        positions, chosen = self.positions.clone(), accept[..., None, None]
        positions[lower], positions[lower + 1] = torch.where(chosen, above, below), torch.where(chosen, below, above)
        self.positions = positions
        self._swaps_tried[lower.cpu()] += accept.shape[1]
        self._swaps_made[lower.cpu()] += accept.sum(dim=1).double().cpu()
