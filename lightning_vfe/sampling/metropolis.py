"""Metropolis-Hastings accept/reject, for every kind of chain and every proposal rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from lightning_vfe.sampling.proposals import ChainState, LogProb, PreparedLogProb, Proposal
from lightning_vfe.sampling.random import WalkerRandom
from lightning_vfe.sampling.recorded import make_moves
from lightning_vfe.sampling.step import decide, left_at_once


@torch.no_grad()
def metropolis(
    log_prob: LogProb,
    state: ChainState,
    proposal: Proposal,
    width: Tensor,
    num_steps: int,
    random: WalkerRandom,
    wrap: Callable[[Tensor], Tensor],
) -> tuple[ChainState, Tensor]:
    """Run num_steps steps of all chains. A move x -> y is accepted with probability

        min(1, p(y) q(x|y) / (p(x) q(y|x))).

    A proposal whose ln p is not finite is always rejected. A chain that stands at a non-finite ln p (it can only have
    started there) takes the first finite proposal.

    Args:
        log_prob: ln p up to a constant, with the lattice's period: positions (..., N, 3) -> (...).
        state: from proposal.evaluate(log_prob, positions); the first dim is W, the walkers of `random`.
        proposal: the rule.
        width: scale of the moves, in the unit of the positions, a 0-dim tensor.
        num_steps: number of steps, at least one.
        random: streams of the walker groups.
        wrap: brings positions (..., N, 3) back into the cell.

    Returns:
        The new state, its positions wrapped and its displacement increased by the accepted moves before wrapping, and
        the number of accepted moves of each chain, int64  # (...).

    Source: Hastings, Biometrika 57, 97 (1970).
    """
    # Only ln p needs positions in the cell: the chain runs in open space, and its end is brought back.
    inside: LogProb = log_prob
    if not isinstance(log_prob, PreparedLogProb):
        inside = lambda positions: log_prob(wrap(positions))  # noqa: E731
    moves = make_moves(inside, left_at_once(state), proposal, width)
    shapes = state.positions.shape, state.log_prob.shape
    for noise, uniform in random.moves(num_steps, *shapes, dtype=state.positions.dtype):
        for numbers in zip(noise, uniform.log_(), strict=True):
            moves.move(*numbers)
    end, accepted = moves.end()
    displacement = state.displacement + (end.positions - state.positions)
    own_log_prob = torch.where(accepted > 0, end.log_prob, state.log_prob)
    return replace(end, positions=wrap(end.positions), log_prob=own_log_prob, displacement=displacement), accepted


def accept_or_reject(
    state: ChainState, candidate: ChainState, correction: Tensor, random: WalkerRandom
) -> tuple[ChainState, Tensor]:
    """One decision of every chain, by the rule of `metropolis`.

    Args:
        state: where the chains stand, x.
        candidate: where they may go, y.
        correction: ln q(x|y) - ln q(y|x).  # (...)
        random: streams of the walker groups.

    Returns:
        The state, moved to the candidate where that is accepted, with the old displacement, and where it is  # (...).
    """
    uniform = random.uniform(state.log_prob.shape, dtype=state.log_prob.dtype)
    chosen, accept = decide(left_at_once(state), candidate, correction, uniform.log_())
    return replace(chosen, log_prob=torch.where(accept, candidate.log_prob, state.log_prob)), accept


def num_not_finite(log_prob: Tensor) -> Tensor:
    """Number of chains whose log-probability is not finite, float64.  # ()"""
    return (~torch.isfinite(log_prob)).sum().to(torch.float64)
