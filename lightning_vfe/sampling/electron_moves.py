"""The electrons' part of a sweep: moves on |psi_x|^2 in the field of protons that stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.sampling.adaptation import memory_counts
from lightning_vfe.sampling.metropolis import metropolis
from lightning_vfe.sampling.moves import global_fraction
from lightning_vfe.sampling.proposals import ChainState, LogProb, Proposal
from lightning_vfe.sampling.walkers import Walkers

ElectronTarget = Callable[[Walkers], LogProb]
"""ln |psi_x(r)|^2 up to a constant per walker, as a function of the electrons (W, B, N, 3) -> (W, B) in the unit of the
walkers, prepared once a sweep for the protons and states of the walkers."""


class ElectronMove(NamedTuple):
    """What the electron moves of a sweep give back."""

    state: ChainState
    """Where the electrons stand."""
    accepted: Tensor
    """Accepted moves. # (W, B)"""
    at_start: Tensor
    """ln|psi|^2 before all moves. # (W, B)"""
    at_last_quarter: Tensor
    """The same before the last quarter of them. # (W, B)"""


def move_electrons(
    walkers: Walkers, target: ElectronTarget, rule: Proposal, width: Tensor, num_steps: int, cell: PeriodicCell
) -> ElectronMove:
    """Metropolis moves of all electrons; the walkers are not changed."""
    # An exponential relaxation that gains less in the last quarter than in the one before has even less to go.
    early = 3 * num_steps // 4
    log_prob = target(walkers)

    # ln|psi|^2 of the old positions is computed again: parameters or protons changed since the last sweep.
    start = rule.evaluate(log_prob, walkers.electrons)
    middle, first = metropolis(log_prob, start, rule, width, early, walkers.random, cell.wrap)
    end, second = metropolis(log_prob, middle, rule, width, num_steps - early, walkers.random, cell.wrap)
    return ElectronMove(end, first + second, start.log_prob, middle.log_prob)


def describe(move: ElectronMove, num_steps: int, add_up: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """What a sweep reports of its num_steps moves, over all electron walkers of all processes."""
    start, middle, end = (each.to(torch.float64) for each in (move.at_start, move.at_last_quarter, move.state.log_prob))
    sums = torch.stack([(end - middle).sum(), (end - start).sum(), end.new_tensor(end.numel())])
    drift, gain, count = add_up(sums)
    stayed, pairs = add_up(memory_counts(middle, end))
    return {
        "electron_acceptance": global_fraction(move.accepted, num_steps, add_up),
        "electron_drift": drift / count,
        "electron_gain": gain / count,
        "electron_memory": (2.0 * stayed - pairs) / pairs.clamp(min=1.0),
        "electron_steps": end.new_tensor(num_steps),
    }
