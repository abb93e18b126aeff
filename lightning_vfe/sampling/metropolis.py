"""Metropolis-Hastings accept/reject, for every kind of chain and every proposal rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from lightning_vfe.sampling.proposals import ChainState, LogProb, Proposal
from lightning_vfe.sampling.random import WalkerRandom


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
    start, accepted = state, torch.zeros_like(state.log_prob, dtype=torch.int64)
    for _ in range(num_steps):
        candidate, correction = proposal(lambda positions: log_prob(wrap(positions)), state, width, random)
        state, accept = accept_or_reject(state, candidate, correction, random)
        accepted += accept
    displacement = start.displacement + (state.positions - start.positions)
    return replace(state, positions=wrap(state.positions), displacement=displacement), accepted


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
    log_ratio = candidate.log_prob - state.log_prob + correction
    log_uniform = torch.log(random.uniform(state.log_prob.shape, dtype=state.log_prob.dtype))
    accept = torch.isfinite(candidate.log_prob) & ((log_uniform < log_ratio) | ~torch.isfinite(state.log_prob))
    return _choose(accept, candidate, state), accept


def num_not_finite(log_prob: Tensor) -> Tensor:
    """Number of chains whose log-probability is not finite, float64.  # ()"""
    return (~torch.isfinite(log_prob)).sum().to(torch.float64)


def _choose(accept: Tensor, candidate: ChainState, state: ChainState) -> ChainState:
    """The candidate where accept (...) is true, the old state elsewhere; the displacement stays that of the start."""
    particles = accept[..., None, None]  # (..., 1, 1)
    gradient = None
    if state.gradient is not None and candidate.gradient is not None:
        gradient = torch.where(particles, candidate.gradient, state.gradient)
    return replace(
        state,
        positions=torch.where(particles, candidate.positions, state.positions),
        log_prob=torch.where(accept, candidate.log_prob, state.log_prob),
        gradient=gradient,
    )
