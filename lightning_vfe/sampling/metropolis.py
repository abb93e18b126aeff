"""Metropolis-Hastings accept/reject, for every kind of chain and every proposal rule."""

from __future__ import annotations

from collections.abc import Callable

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
        width: scale of the moves in bohr, a 0-dim tensor.
        num_steps: number of steps, at least one.
        random: streams of the walker groups.
        wrap: brings positions (..., N, 3) back into the cell.

    Returns:
        The new state, its positions wrapped and its displacement increased by the accepted moves before wrapping, and
        the number of accepted moves of each chain, int64  # (...).

    Source: Hastings, Biometrika 57, 97 (1970).
    """
    accepted = torch.zeros_like(state.log_prob, dtype=torch.int64)
    for _ in range(num_steps):
        candidate, correction = proposal(lambda positions: log_prob(wrap(positions)), state, width, random)
        finite = torch.isfinite(state.log_prob)
        current = torch.where(finite, state.log_prob, torch.full_like(state.log_prob, -torch.inf))
        log_ratio = candidate.log_prob - current + correction
        uniform = random.uniform(state.log_prob.shape, dtype=state.log_prob.dtype)
        accept = torch.isfinite(candidate.log_prob) & (torch.log(uniform) < log_ratio)
        state = _choose(accept, candidate, state, wrap)
        accepted += accept
    return state, accepted


def _choose(accept: Tensor, candidate: ChainState, state: ChainState, wrap: Callable[[Tensor], Tensor]) -> ChainState:
    """The candidate where accept (...) is true, the old state elsewhere."""
    particles = accept[..., None, None]  # (..., 1, 1)
    moved = candidate.positions - state.positions
    gradient = None
    if state.gradient is not None and candidate.gradient is not None:
        gradient = torch.where(particles, candidate.gradient, state.gradient)
    return ChainState(
        positions=torch.where(particles, wrap(candidate.positions), state.positions),
        log_prob=torch.where(accept, candidate.log_prob, state.log_prob),
        gradient=gradient,
        displacement=torch.where(particles, state.displacement + moved, state.displacement),
    )
