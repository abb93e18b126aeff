"""One Metropolis-Hastings step of all chains, from given random numbers. The host reads nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from lightning_vfe.sampling.proposals import ChainState, LogProb, Proposal


def step(
    log_prob: LogProb, state: ChainState, proposal: Proposal, width: Tensor, noise: Tensor, log_uniform: Tensor
) -> tuple[ChainState, Tensor]:
    """Propose and decide, by the rule of `metropolis`.

    Args:
        log_prob: ln p up to a constant, at any image of the positions.
        state: where the chains stand; ln p is a number or -inf.
        proposal: the rule.
        width: scale of the moves.  # ()
        noise: standard normal numbers.  # (..., N, 3)
        log_uniform: logarithms of uniform numbers.  # (...)

    Returns:
        The new state with the old displacement, and which chains have moved  # (...).
    """
    candidate, correction = proposal(log_prob, state, width, noise)
    return decide(state, candidate, correction, log_uniform)


def decide(
    state: ChainState, candidate: ChainState, correction: Tensor | None, log_uniform: Tensor
) -> tuple[ChainState, Tensor]:
    """The candidate where it is accepted, else the state; see `step`."""
    log_ratio = candidate.log_prob - state.log_prob
    if correction is not None:
        # It is infinite for a chain that stands at -inf, whatever the correction.
        log_ratio = torch.where(log_ratio == math.inf, log_ratio, log_ratio + correction)
    # The comparison is false where the candidate's ln p is -inf or not a number.
    accept = (log_uniform < log_ratio) & (candidate.log_prob < math.inf)
    particles = accept[..., None, None]  # (..., 1, 1)
    gradient = None
    if state.gradient is not None and candidate.gradient is not None:
        gradient = torch.where(particles, candidate.gradient, state.gradient)
    chosen = replace(
        state,
        positions=torch.where(particles, candidate.positions, state.positions),
        log_prob=torch.where(accept, candidate.log_prob, state.log_prob),
        gradient=gradient,
    )
    return chosen, accept


def left_at_once(state: ChainState) -> ChainState:
    """The same state with ln p = -inf where it is not finite: any finite proposal is accepted then."""
    worst = -math.inf
    return replace(state, log_prob=torch.nan_to_num(state.log_prob, nan=worst, posinf=worst, neginf=worst))
