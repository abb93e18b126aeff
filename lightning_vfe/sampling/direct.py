"""Direct sampling of p(x): chains on the base density p_base(z), and x by inverting the map z(x)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.sampling.metropolis import metropolis, num_not_finite
from lightning_vfe.sampling.moves import ProtonMove
from lightning_vfe.sampling.proposals import LogProb, Proposal
from lightning_vfe.sampling.random import WalkerRandom
from lightning_vfe.sampling.tempering import TRIALS, LadderMove, move_ladder
from lightning_vfe.sampling.walkers import Walkers


@dataclass(frozen=True)
class TransportedDensity:
    """p(x) = p_base(z(x)) |det dz/dx|, given by its base density and the map, instead of by ln p(x).

    All positions are in the unit of the walkers.

    Attributes:
        log_prob: ln p_base(z) up to a constant, (W, ..., N, 3) -> (W, ...).
        to_base: z of protons x, (W, N, 3) -> (W, N, 3).
        from_base: protons x of z, and which walkers have one, (W, N, 3) -> (W, N, 3), (W,).
        sample: independent draws of z of all walkers, random -> (W, N, 3), of a base that has them; None asks for
            chains.
    """

    log_prob: LogProb
    to_base: Callable[[Tensor], Tensor]
    from_base: Callable[[Tensor], tuple[Tensor, Tensor]]
    sample: Callable[[WalkerRandom], Tensor] | None = None


class _BaseMove(NamedTuple):
    """Base protons after a sweep, before it is known which of them have an x."""

    z: Tensor
    """# (W, N, 3)"""
    hotter: Tensor | None
    """Those of the hotter chains, where there are any. # (W, K - 1, N, 3)"""
    fractions: dict[str, tuple[Tensor, int]]
    num_stranded: Tensor


def move_through_base(
    walkers: Walkers,
    density: TransportedDensity,
    rule: Proposal,
    width: Tensor,
    num_steps: int,
    cell: PeriodicCell,
    tempering: Sequence[float] = (),
) -> ProtonMove:
    """Move the base protons z, in place, and find the protons x that they belong to.

    z ~ p_base(z) gives x ~ p_base(z(x)) |det dz/dx| = p(x) for every invertible map. The chains live on p_base, which
    does not know the map's parameters: they stay in equilibrium while these are trained, only x follows them. A walker
    without an x keeps both its old z and its old x, and its hotter chains: the chain then samples that part of p_base
    which has one. Such walkers are counted.

    Args:
        walkers: the field `base_protons` is updated; where there is none yet it is z(x). The field `hotter_protons`
            holds the hotter chains; where they are as many as before they continue, else they start at z.
        density: base density and map.
        rule: moves of z.
        width: of these moves.  # ()
        num_steps: number of these moves.
        cell: the periodic cell.
        tempering: factors of T of chains that exchange their positions, see `move_ladder`; none for a single chain.
    """
    known = walkers.fields.get("base_protons")
    old_z = cell.wrap(density.to_base(walkers.protons)) if known is None else known
    old_hotter = walkers.fields.pop("hotter_protons", None)
    if density.sample is not None:
        move = _draw(walkers, density.sample, num_steps)
    elif tempering:
        if old_hotter is None or old_hotter.shape[1] != len(tempering) - 1:
            old_hotter = old_z[:, None].repeat(1, len(tempering) - 1, 1, 1)
        ladder = torch.cat([old_z[:, None], old_hotter], dim=1)
        arguments = rule, width, num_steps, walkers.random, cell.wrap
        move = _of_ladder(move_ladder(density.log_prob, ladder, tempering, *arguments), num_steps)
    else:
        start = rule.evaluate(density.log_prob, old_z)
        state, accepted = metropolis(density.log_prob, start, rule, width, num_steps, walkers.random, cell.wrap)
        fractions = {"proton_acceptance": (accepted, num_steps)}
        move = _BaseMove(state.positions, None, fractions, num_not_finite(state.log_prob))
    x, found = density.from_base(move.z)
    chosen = found[:, None, None]
    walkers["base_protons"] = torch.where(chosen, move.z, old_z)
    if move.hotter is not None and old_hotter is not None:
        walkers["hotter_protons"] = torch.where(chosen[:, None], move.hotter, old_hotter)
    protons = torch.where(chosen, cell.wrap(x), walkers.protons)
    return ProtonMove(
        protons=protons,
        displacement=cell.minimum_image(protons - walkers.protons),
        fractions=move.fractions,
        totals={"num_stranded": move.num_stranded, "num_failed_inversions": (~found).sum().to(torch.float64)},
        adapts=density.sample is None,
    )


def _draw(walkers: Walkers, sample: Callable[[WalkerRandom], Tensor], num_steps: int) -> _BaseMove:
    """Independent base protons: as if all moves were accepted."""
    z = sample(walkers.random).to(walkers.protons)
    accepted = torch.full((len(z),), num_steps, dtype=torch.int64, device=z.device)
    return _BaseMove(z, None, {"proton_acceptance": (accepted, num_steps)}, z.new_zeros((), dtype=torch.float64))


def _of_ladder(moved: LadderMove, num_steps: int) -> _BaseMove:
    """The chains at T, and the exchanges of all."""
    fractions = {"proton_acceptance": (moved.accepted[:, 0], num_steps)}
    for number, exchanged in enumerate(moved.exchanged.unbind(1), start=1):
        fractions[f"exchange_acceptance_{number}"] = exchanged, TRIALS
    z, hotter = moved.positions[:, 0], moved.positions[:, 1:]
    return _BaseMove(z, hotter, fractions, num_not_finite(moved.log_prob))
