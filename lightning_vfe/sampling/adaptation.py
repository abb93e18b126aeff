"""Adaptation of the proposal widths, and of the number of electron moves."""

from __future__ import annotations

import math

import torch
from torch import Tensor

NARROWEST, WIDEST = 1e-4, 0.5
"""Of all moves, in units of L: far narrower ones do not move anything, wider ones are uniform already."""
MAX_LAG = 0.05
"""Of ln|psi|^2 at the end of the electron moves, where their number adapts."""
SMALLEST_MEMORY, LARGEST_MEMORY = 0.1, 0.4
"""Wanted correlation of ln|psi|^2 over a quarter of the moves, at least and at most; 0.4^4 = 0.026 over all of them."""
FIRST_STEPS, FEWEST_STEPS, MOST_STEPS = 40.0, 8.0, 1000.0
"""Of a number of moves that adapts."""
STEPS_GAIN = 0.5
"""Change of ln(number of moves) per unit of the correlation off its target."""


def log_width_limits(length: float) -> tuple[float, float]:
    """Least and greatest ln(width) in a cell of edge L, in its unit of length."""
    return math.log(NARROWEST * length), math.log(WIDEST * length)


def adapt_log_width(
    log_width: Tensor,
    acceptance: Tensor,
    target: float,
    gain: float,
    smallest: float,
    largest: float,
    max_change: float = 0.3,
) -> Tensor:
    """One Robbins-Monro step of ln(width) towards the target acceptance,

        ln w  <-  ln w + clip(gain * (acceptance - target), -max_change, max_change),    smallest <= ln w <= largest.

    The gain is constant, not decaying, because in training the density changes under the chain. A chain whose width
    follows its own past does not keep detailed balance exactly: freeze the width (do not call this) when measuring. The
    upper limit matters for a flat density, where every move is accepted and the width would grow without end.

    Args:
        log_width: ln of the width, 0-dim.
        acceptance: accepted fraction of the last sweep over all walkers of all processes, 0-dim, in [0, 1].
        target: target fraction, in (0, 1).
        gain: step per unit of acceptance, positive.
        smallest: least ln(width).
        largest: greatest ln(width).
        max_change: greatest step of ln(width), positive.

    Returns:
        The new ln(width), 0-dim.

    Source: Robbins and Monro, Ann. Math. Stat. 22, 400 (1951); Andrieu and Thoms, Stat. Comput. 18, 343 (2008), alg. 4.
    """
    change = (gain * (acceptance - target)).clamp(-max_change, max_change)
    return (log_width + change.to(log_width.dtype)).clamp(smallest, largest)


def adapt_num_steps(num_steps: float, memory: float, gain: float) -> float:
    """One Robbins-Monro step of ln(number of moves). The electrons start with ln|psi|^2 off by the gain g of the sweep,

        c = sin(pi/2 memory),    c_0 = (MAX_LAG / |g|)^(1/4) between SMALLEST_MEMORY and LARGEST_MEMORY,
        ln n  <-  ln n + STEPS_GAIN * (c - c_0),    FEWEST_STEPS <= n <= MOST_STEPS.

    c is the correlation of ln|psi|^2 over a quarter of the moves, for Gaussian numbers. Over all moves a lag that
    relaxes like it is multiplied by c^4, so that about MAX_LAG is left. What is left itself is far smaller than the
    error of a sweep. c and g are large: n is steady within some per cent, and follows a change in about ten sweeps.

    Args:
        num_steps: number of moves before rounding.
        memory: see `memory_counts`, over all walkers of all processes, in [-1, 1].
        gain: mean change of ln|psi|^2 over all moves; where it is not a number, the number of moves stays.

    Returns:
        The new number before rounding.
    """
    if math.isnan(gain):
        return num_steps
    # Rounded: sums over other numbers of processes differ in the last digit.
    lag = max(abs(round(gain, 3)), MAX_LAG) if math.isfinite(gain) else math.inf
    wanted = min(max((MAX_LAG / lag) ** 0.25, SMALLEST_MEMORY), LARGEST_MEMORY)
    change = STEPS_GAIN * (math.sin(0.5 * math.pi * memory) - wanted)
    return min(max(num_steps * math.exp(change), FEWEST_STEPS), MOST_STEPS)


def memory_counts(before: Tensor, after: Tensor) -> Tensor:
    """Ordered pairs of electron walkers of one proton walker: those whose order has stayed, and all.

    The memory is Kendall's rank correlation, 2 stayed / all - 1: 1 if nothing is forgotten, 0 if everything is. Whole
    numbers are added up, so that the order of the sum over processes cannot change the result.

    Args:
        before: ln|psi|^2 before some moves.  # (W, B)
        after: the same after them.  # (W, B)

    Returns:
        Both counts, float64.  # (2,)

    Source: Kendall, Biometrika 30, 81 (1938).
    """
    num_walkers, count = before.shape
    orders = [values.unsqueeze(-1) > values.unsqueeze(-2) for values in (before, after)]  # (W, B, B) each
    stayed = (orders[0] == orders[1]).sum() - num_walkers * count  # a walker and itself are no pair
    return torch.stack([stayed, torch.full_like(stayed, num_walkers * count * (count - 1))]).to(torch.float64)
