"""Delayed acceptance: a chain on a cheap density that stands in for p(x), and one exact decision at its end."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.sampling.metropolis import accept_or_reject, metropolis, num_not_finite
from lightning_vfe.sampling.moves import ProtonMove
from lightning_vfe.sampling.proposals import LogProb, Proposal
from lightning_vfe.sampling.walkers import Walkers


@dataclass(frozen=True)
class DelayedDensity:
    """p(x) and a density p_s(x) that is like it, and cheaper.

    Attributes:
        log_prob: ln p(x) up to a constant, (W, N, 3) -> (W,).
        surrogate: ln p_s(x) up to another constant, (W, N, 3) -> (W,), the same function during a sweep.
    """

    log_prob: LogProb
    surrogate: LogProb


def move_by_surrogate(
    walkers: Walkers, density: DelayedDensity, rule: Proposal, width: Tensor, num_steps: int, cell: PeriodicCell
) -> ProtonMove:
    """A Metropolis chain on p_s from x to y, which is then accepted with probability

        min(1, p(y) p_s(x) / (p(x) p_s(y))),

    or else the walker stays at x. The steps on p_s are reversible for it and all of one kind, so that they go from x
    to y and from y to x in the ratio p_s(y) / p_s(x): whatever p_s is, the protons are distributed as p(x). A p_s far
    from p costs acceptances only.

    Args:
        walkers: where the protons are; not changed.
        density: p and p_s.
        rule: moves of the chain on p_s.
        width: of these moves.  # ()
        num_steps: number of these moves.
        cell: the periodic cell.

    Source: Christen and Fox, J. Comput. Graph. Stat. 14, 795 (2005); Iftimie, Salahub, Wei and Schofield, J. Chem.
    Phys. 113, 4852 (2000).
    """
    x = walkers.protons
    first = rule.evaluate(density.surrogate, x)
    last, accepted = metropolis(density.surrogate, first, rule, width, num_steps, walkers.random, cell.wrap)
    # ln p of the old protons is computed again: the parameters have changed since the last sweep.
    start = replace(first, log_prob=density.log_prob(x))
    end = replace(last, log_prob=density.log_prob(last.positions))
    state, decided = accept_or_reject(start, end, first.log_prob - last.log_prob, walkers.random)
    displacement = torch.where(decided[:, None, None], last.displacement, torch.zeros_like(x))
    fractions = {"proton_acceptance": (accepted, num_steps), "delayed_acceptance": (decided, 1)}
    return ProtonMove(state.positions, displacement, fractions, {"num_stranded": num_not_finite(state.log_prob)})
