"""Adaptation of the proposal widths."""

from __future__ import annotations

import math

from torch import Tensor

NARROWEST, WIDEST = 1e-4, 0.5
"""Of all moves, in units of L: far narrower ones do not move anything, wider ones are uniform already."""


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
        target: wanted fraction, in (0, 1).
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
