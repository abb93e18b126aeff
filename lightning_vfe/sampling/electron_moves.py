"""The electrons' part of a sweep: moves on |psi_x|^2 in the field of protons that stay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.sampling.metropolis import metropolis
from lightning_vfe.sampling.proposals import ChainState, LogProb, Proposal
from lightning_vfe.sampling.state import Walkers


@dataclass(frozen=True)
class ElectronDensity:
    """p(r | x) that is prepared for the protons once a sweep, instead of being a function of both.

    Attributes:
        at: ln p(r | x) up to a constant as a function of the electrons, (W, B, N, 3) -> (W, B), at protons (W, N, 3).
    """

    at: Callable[[Tensor], LogProb]


ElectronLaw = Callable[[Tensor, Tensor], Tensor] | ElectronDensity
"""ln |psi_x(r)|^2 up to a constant per walker, ((W, N, 3), (W, B, N, 3)) -> (W, B), or prepared for x."""


def move_electrons(
    walkers: Walkers, density: ElectronLaw, rule: Proposal, width: Tensor, num_steps: int, cell: PeriodicCell
) -> tuple[ChainState, Tensor, Tensor]:
    """Metropolis moves of all electrons; the walkers are not changed.

    Returns:
        New state, accepted moves and the gain of ln|psi|^2 in the last quarter of the steps, float64.  # (W, B) each
    """
    # An exponential relaxation that gains less in the last quarter than in the one before has even less to go.
    early = 3 * num_steps // 4
    protons = walkers.protons
    log_prob = density.at(protons) if isinstance(density, ElectronDensity) else partial(density, protons)

    # ln|psi|^2 of the old positions is computed anew: parameters or protons changed since the last sweep.
    start = rule.evaluate(log_prob, walkers.electrons)
    middle, first = metropolis(log_prob, start, rule, width, early, walkers.random, cell.wrap)
    end, second = metropolis(log_prob, middle, rule, width, num_steps - early, walkers.random, cell.wrap)
    return end, first + second, (end.log_prob - middle.log_prob).to(torch.float64)
