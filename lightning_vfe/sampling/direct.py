"""Direct sampling of p(x): chains on the base density p_base(z), and x by inverting the map z(x)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.sampling.metropolis import metropolis, num_not_finite
from lightning_vfe.sampling.moves import ProtonMove
from lightning_vfe.sampling.proposals import LogProb, Proposal
from lightning_vfe.sampling.random import WalkerRandom
from lightning_vfe.sampling.walkers import Walkers


@dataclass(frozen=True)
class TransportedDensity:
    """p(x) = p_base(z(x)) |det dz/dx|, given by its base density and the map, instead of by ln p(x).

    All positions are in the unit of the walkers.

    Attributes:
        log_prob: ln p_base(z) up to a constant, (W, N, 3) -> (W,).
        to_base: z of protons x, (W, N, 3) -> (W, N, 3).
        from_base: protons x of z, and which walkers have one, (W, N, 3) -> (W, N, 3), (W,).
        sample: independent draws of z of all walkers, random -> (W, N, 3), of a base that has them; None asks for
            chains.
    """

    log_prob: LogProb
    to_base: Callable[[Tensor], Tensor]
    from_base: Callable[[Tensor], tuple[Tensor, Tensor]]
    sample: Callable[[WalkerRandom], Tensor] | None = None


def move_through_base(
    walkers: Walkers, density: TransportedDensity, rule: Proposal, width: Tensor, num_steps: int, cell: PeriodicCell
) -> ProtonMove:
    """Move the base protons z, in place, and find the protons x that they belong to.

    z ~ p_base(z) gives x ~ p_base(z(x)) |det dz/dx| = p(x) for every invertible map. The chains live on p_base, which
    does not know the map's parameters: they stay in equilibrium while these are trained, only x follows them. A walker
    without an x keeps both its old z and its old x: the chain then samples that part of p_base which has one. Such
    walkers are counted.

    Args:
        walkers: the field `base_protons` is updated; where there is none yet it is z(x).
        density: base density and map.
        rule: moves of z.
        width: of these moves.  # ()
        num_steps: number of these moves.
        cell: the periodic cell.
    """
    known = walkers.fields.get("base_protons")
    old_z = cell.wrap(density.to_base(walkers.protons)) if known is None else known
    if density.sample is not None:
        z = density.sample(walkers.random).to(old_z)
        accepted = torch.full((len(z),), num_steps, dtype=torch.int64, device=z.device)
        stranded = z.new_zeros((), dtype=torch.float64)
    else:
        start = rule.evaluate(density.log_prob, old_z)
        state, accepted = metropolis(density.log_prob, start, rule, width, num_steps, walkers.random, cell.wrap)
        z, stranded = state.positions, num_not_finite(state.log_prob)
    x, found = density.from_base(z)
    chosen = found[:, None, None]
    walkers["base_protons"] = torch.where(chosen, z, old_z)
    protons = torch.where(chosen, cell.wrap(x), walkers.protons)
    return ProtonMove(
        protons=protons,
        displacement=cell.minimum_image(protons - walkers.protons),
        fractions={"proton_acceptance": (accepted, num_steps)},
        totals={"num_stranded": stranded, "num_failed_inversions": (~found).sum().to(torch.float64)},
        adapts=density.sample is None,
    )
