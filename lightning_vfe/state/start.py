"""Where the protons of new walkers stand."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_vfe.physics.strata import Strata
from lightning_vfe.physics.structures import make_structure, starts_of
from lightning_vfe.physics.system import System
from lightning_vfe.sampling.random import WalkerRandom


def starting_protons(
    system: System,
    strata: Strata,
    structure: str | Tensor,
    seed: int,
    is_fixed: bool,
    random: WalkerRandom,
    stratum: Tensor,
    start: Tensor,
) -> Tensor:
    """Protons of new walkers in units of rs.  # (W, N, 3)

    Each group takes its own random numbers. Fixed protons are copies of one structure.

    Args:
        system: the particles.
        strata: state points and twists.
        structure: see `VariationalState`.
        seed: of the structure of fixed protons.
        is_fixed: whether the protons stay.
        random: streams of the walker groups.
        stratum: number of the stratum of each walker.  # (W,)
        start: number of the start of each walker, where the structure has several.  # (W,)

    Raises:
        ValueError: the structure does not fit.
    """

    def at_state(number: int, turn: int, count: int, generator: torch.Generator) -> Tensor:
        if not system.num_protons:
            return torch.zeros(count, 0, 3, device=generator.device)
        if isinstance(structure, Tensor):
            return structure[number].to(generator.device).expand(count, -1, -1)
        point = strata.points[number]
        return make_structure(starts_of(structure)[turn], point.cell(system.num_atoms), count, generator) / point.rs

    state = strata.state_index(stratum)
    if is_fixed:  # every copy takes the same random numbers
        return torch.cat([at_state(number, 0, 1, torch.Generator().manual_seed(seed)) for number in state.tolist()])
    of_groups = iter(torch.stack([state, start], dim=1).split(random.walkers_per_group(len(state))))

    def place(generator: torch.Generator, count: int) -> Tensor:
        own = next(of_groups)  # per_group goes through the groups in their order
        protons = torch.empty(count, system.num_atoms, 3, device=generator.device)
        for kind in own.unique(dim=0):
            here = (own == kind).all(dim=1).to(generator.device)
            number, turn = kind.tolist()
            protons[here] = at_state(number, turn, int(here.sum()), generator)
        return protons

    return random.per_group(place, len(state))
