"""The ways to move the protons of a sweep, chosen by what is known of p(x)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lightning_vfe.errors import SettingError
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.sampling.coupled import CoupledDensity, ElectronSteps, move_by_energy
from lightning_vfe.sampling.delayed import DelayedDensity, move_by_surrogate
from lightning_vfe.sampling.direct import TransportedDensity, move_through_base
from lightning_vfe.sampling.metropolis import metropolis, num_not_finite
from lightning_vfe.sampling.moves import ProtonMove
from lightning_vfe.sampling.proposals import LogProb, Proposal
from lightning_vfe.sampling.walkers import Walkers

PROTON_SAMPLING = ("metropolis", "direct", "delayed", "ceimc")

ProtonTarget = LogProb | TransportedDensity | DelayedDensity | CoupledDensity
"""What p(x) is given by: ln p(x) up to a constant, (W, N, 3) -> (W,), for Metropolis chains; base density and map, to
sample it directly; ln p(x) and a cheaper density for the chain, for delayed acceptance; or the energies of psi_x and a
cheap density, for exp(-E(x)/kT) in place of p(x). Positions are in the unit of the walkers."""


def check_proton_sampling(value: str) -> str:
    """The value, if it names a way of sampling; ValueError in one line otherwise."""
    if value not in PROTON_SAMPLING:
        raise SettingError("proton_sampling", value, "is unknown", "choose metropolis, direct, delayed or ceimc")
    return value


def move_protons(
    walkers: Walkers,
    density: ProtonTarget,
    rule: Proposal,
    width: Tensor,
    num_steps: int,
    cell: PeriodicCell,
    electrons: ElectronSteps | None = None,
    tempering: Sequence[float] = (),
) -> ProtonMove:
    """Moves of the protons that leave their density as it is.

    What the walkers hold beside the protons and their electrons is brought up to date.

    Args:
        walkers: where the protons are.
        density: p(x).
        rule: moves of the chain.
        width: of these moves.  # ()
        num_steps: number of these moves.
        cell: the periodic cell.
        electrons: moves of the electrons for a `CoupledDensity`, which alone needs them.
        tempering: factors of T for a `TransportedDensity`, which alone takes them.
    """
    if isinstance(density, TransportedDensity):
        return move_through_base(walkers, density, rule, width, num_steps, cell, tempering)
    for name in ("base_protons", "hotter_protons"):
        walkers.fields.pop(name, None)
    if isinstance(density, CoupledDensity):
        assert electrons is not None, "energies need electrons"
        return move_by_energy(walkers, density, rule, width, num_steps, electrons, cell)
    if isinstance(density, DelayedDensity):
        return move_by_surrogate(walkers, density, rule, width, num_steps, cell)
    start = rule.evaluate(density, walkers.protons)
    state, accepted = metropolis(density, start, rule, width, num_steps, walkers.random, cell.wrap)
    fractions = {"proton_acceptance": (accepted, num_steps)}
    return ProtonMove(state.positions, state.displacement, fractions, {"num_stranded": num_not_finite(state.log_prob)})
