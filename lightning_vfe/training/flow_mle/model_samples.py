"""Samples of p(x): drawn through the map where the base can be drawn from, else from chains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from lightning_vfe.models.base.uniform import UniformBase
from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.physics.state_point import WalkerStates
from lightning_vfe.sampling.chains import Chains
from lightning_vfe.sampling.proposals import ChainState
from lightning_vfe.sampling.random import WalkerRandom

SWEEP = 20
"""Steps of the chains between two samples, where they cannot be drawn."""
CHECKING_MOVES = 2
"""Steps that every drawn sample makes, to look for folds around it."""
Track = Callable[[str, Iterable[int], int], Iterable[int]]
"""Shows the numbers of steps under a title, of which there are so many."""


def model_samples(
    density: ProtonDensity,
    chains: Chains,
    states_of: Callable[[Tensor], WalkerStates],
    equilibration_sweeps: int,
    num_sweeps: int,
    seed: int,
    track: Track,
) -> Iterator[ChainState]:
    """Batches of samples of p(x), one for each sweep.

    A base that can be drawn from gives independent ones, x by inverting the map; a walker whose inversion fails
    stays where it is. Of the several x that a folded map has for one z, the inversion finds only one; the moves
    that follow leave p alone, but step into the fold.

    Args:
        density: p(x).
        chains: on p(x), W of them.
        states_of: the states of protons.  # (W, N, 3) -> (W,)
        equilibration_sweeps: before the first sample, where the base is not drawn from.
        num_sweeps: number of batches.
        seed: of the base's samples.
        track: shows how far it is.
    """
    if isinstance(density.base, UniformBase):
        random = WalkerRandom([1], seed, chains.state.positions.device)  # the chains have the numbers of group 0
        for _ in track("samples of p(x)", range(num_sweeps), num_sweeps):
            states = states_of(chains.state.positions)
            found = density.flow.from_base(density.base.sample(states, random), states)
            x = torch.where(found.converged[:, None, None], chains.cell.wrap(found.x), chains.state.positions)
            chains.place(x)
            chains.advance(CHECKING_MOVES)
            yield chains.state
        return
    for _ in track("equilibrate", range(equilibration_sweeps), equilibration_sweeps):
        chains.advance(SWEEP, adapt=True)
    for _ in track("samples of p(x)", range(num_sweeps), num_sweeps):
        chains.advance(SWEEP)
        yield chains.state
