"""Replica exchange in temperature: hotter copies of a chain cross barriers, and hand their positions down."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_vfe.errors import SettingError
from lightning_vfe.sampling.metropolis import metropolis
from lightning_vfe.sampling.proposals import ChainState, LogProb, Proposal
from lightning_vfe.sampling.random import WalkerRandom

TRIALS = 2
"""Exchanges of each pair of neighbours in a sweep: before the moves and after them."""


class LadderMove(NamedTuple):
    """Where the K chains of each walker stand after a sweep."""

    positions: Tensor
    """Inside the cell. # (W, K, N, 3)"""
    log_prob: Tensor
    """ln p, whatever the temperature of the chain. # (W, K)"""
    accepted: Tensor
    """Accepted moves of each chain, int64. # (W, K)"""
    exchanged: Tensor
    """Exchanges of chains k and k + 1, at most TRIALS, int64. # (W, K - 1)"""


def check_tempering(factors: Sequence[float] | None, proton_sampling: str) -> tuple[float, ...]:
    """The factors of T, none for chains that are not tempered.

    Raises:
        ValueError: fewer than two factors, the first one is not 1, or they do not increase; or chains that do not move
            base protons.
    """
    if factors is None:
        return ()
    values = tuple(float(factor) for factor in factors)
    increase = all(a < b < math.inf for a, b in pairwise(values))
    if len(values) < 2 or values[0] != 1.0 or not increase:
        reason = "must be increasing factors of T that begin with 1"
        raise SettingError("tempering", list(values), reason, "give such as [1.0,1.5,2.2], or null")
    if proton_sampling != "direct":
        reason = f"tempers base protons, but sampler.proton_sampling={proton_sampling} has no chains of them"
        raise SettingError("tempering", list(values), reason, "set sampler.proton_sampling=direct")
    return values


def move_ladder(
    log_prob: LogProb,
    positions: Tensor,
    factors: Sequence[float],
    rule: Proposal,
    width: Tensor,
    num_steps: int,
    random: WalkerRandom,
    wrap: Callable[[Tensor], Tensor],
) -> LadderMove:
    """One sweep of K chains for each walker. Chain k samples p_k(z) = p(z)^(1/a_k): p at the temperature a_k T.

    Neighbouring chains exchange their positions, all chains move, and neighbours exchange again. The order of two
    neighbours is drawn from its distribution at their positions: they are exchanged with the probability

        1 / (1 + exp(-d)),    d = (1/a_k - 1/a_{k+1}) (ln p(z_{k+1}) - ln p(z_k)).

    The pairs before the moves are odd, then even; those after them even, then odd. The sweep is thus its own reverse,
    and keeps detailed balance. An exchange takes no evaluation of ln p.

    Args:
        log_prob: ln p up to a constant, (W, K, N, 3) -> (W, K).
        positions: of the chains.  # (W, K, N, 3)
        factors: a_k; the samples are those of a_1 = 1.  # K
        rule: of the moves.
        width: of the moves at a = 1; those of chain k are wider by sqrt(a_k).  # ()
        num_steps: moves of each chain.
        random: streams of the walker groups.
        wrap: brings positions into the cell.

    Source: Swendsen and Wang, Phys. Rev. Lett. 57, 2607 (1986); Barker, Aust. J. Phys. 18, 119 (1965).
    """
    factor = positions.new_tensor(factors)
    state = rule.evaluate(log_prob, positions)
    state, before = _exchange(state, factor, random, (1, 0))
    state, accepted = metropolis(
        lambda z: log_prob(z) / factor,
        _times(state, 1.0 / factor),
        rule,
        width * factor.sqrt()[:, None, None],
        num_steps,
        random,
        wrap,
    )
    state, after = _exchange(_times(state, factor), factor, random, (0, 1))
    return LadderMove(state.positions, state.log_prob, accepted, before + after)


def _times(state: ChainState, factor: Tensor) -> ChainState:
    """The state with ln p and its gradient multiplied by a number of each chain.  # (K,)"""
    gradient = None if state.gradient is None else state.gradient * factor[:, None, None]
    return replace(state, log_prob=state.log_prob * factor, gradient=gradient)


def _exchange(
    state: ChainState, factor: Tensor, random: WalkerRandom, parities: Sequence[int]
) -> tuple[ChainState, Tensor]:
    """Exchange neighbours, first those with one parity of k, then those with the other.

    Returns:
        The state, and which chains k and k + 1 were exchanged, int64.  # (W, K - 1)
    """
    num_walkers, num_chains = state.log_prob.shape
    exchanged = torch.zeros(num_walkers, num_chains - 1, dtype=torch.int64, device=factor.device)
    for parity in parities:
        lower = torch.arange(parity, num_chains - 1, 2, device=factor.device)
        colder = 1.0 / factor[lower] - 1.0 / factor[lower + 1]
        difference = colder * (state.log_prob[:, lower + 1] - state.log_prob[:, lower])
        uniform = random.uniform(difference.shape, dtype=difference.dtype)
        accept = (uniform < torch.sigmoid(difference)).to(torch.int64)  # never where ln p is not a number
        exchanged[:, lower] = accept
        source = torch.arange(num_chains, device=factor.device).repeat(num_walkers, 1)
        source[:, lower] += accept
        source[:, lower + 1] -= accept
        state = _reordered(state, source)
    return state, exchanged


def _reordered(state: ChainState, source: Tensor) -> ChainState:
    """Chain k takes what chain source[k] has.  # (W, K)"""
    particles = source[..., None, None]
    gradient = None if state.gradient is None else state.gradient.take_along_dim(particles, 1)
    return replace(
        state,
        positions=state.positions.take_along_dim(particles, 1),
        log_prob=state.log_prob.take_along_dim(source, 1),
        gradient=gradient,
    )
