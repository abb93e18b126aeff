"""Equilibration that goes on while the walkers drift."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch

from lightning_vfe.optim.collectives import Collectives
from lightning_vfe.physics.equilibration import drifting_terms
from lightning_vfe.state.variational_state import Track, VariationalState

MAX_ROUNDS = 4
"""Rounds of sweeps at most. Each is twice as long as the one before."""


class Settling(NamedTuple):
    """How an equilibration ended.

    Attributes:
        num_sweeps: sweeps of all rounds.
        drifting: names of the terms that drift in the last round; none where the walkers have settled.
    """

    num_sweeps: int
    drifting: tuple[str, ...]


def settle(state: VariationalState, num_sweeps: int, progress: Track) -> Settling:
    """Equilibrate the walkers, and watch all terms of F.

    Where the walkers drift in a round of sweeps (`equilibration.drifting_terms`), another round follows that is twice
    as long, up to MAX_ROUNDS. All processes call it together.

    Args:
        state: networks and walkers.
        num_sweeps: of the first round.
        progress: shows how far a round is.
    """
    for number in range(MAX_ROUNDS):
        drifting = _round(state, 2**number * num_sweeps, progress)
        if not drifting:
            break
    return Settling((2 ** (number + 1) - 1) * num_sweeps, drifting)


def _round(state: VariationalState, num_sweeps: int, progress: Track) -> tuple[str, ...]:
    """Terms that drift in so many sweeps, at any state point."""
    rows: list[torch.Tensor] = []
    names: list[str] = []

    def watched(sweeps: Iterable[int]) -> Iterator[int]:
        for sweep in progress(sweeps):
            yield sweep
            terms = state.energies(state.current()).terms  # after the sweep
            names[:] = terms
            rows.append(torch.stack(list(terms.values()), dim=-1))

    state.equilibrate(num_sweeps, progress=watched)
    gather, strata = Collectives().gather, state.strata
    series = gather(torch.stack(rows, dim=1)).double().cpu()  # (samples, steps, terms)
    stratum = gather(state.independent_strata(state.current())).cpu()
    found: set[str] = set()
    for number in range(strata.num_states):
        own = strata.state_index(stratum) == number
        terms = dict(zip(names, series[own].permute(2, 1, 0), strict=True))
        found.update(drifting_terms(terms, stratum[own], strata.weights(stratum[own])))
    return tuple(name for name in names if name in found)
