"""Coupled electron-ion Monte Carlo: protons of exp(-E(x)/kT), with E(x) the energy of psi_x, known with noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.sampling.electron_moves import ElectronTarget, move_electrons
from lightning_vfe.sampling.energy_difference import Difference, energy_difference, weighted_sum
from lightning_vfe.sampling.metropolis import metropolis, num_not_finite
from lightning_vfe.sampling.moves import ProtonMove
from lightning_vfe.sampling.penalty import penalty
from lightning_vfe.sampling.proposals import LogProb, Proposal
from lightning_vfe.sampling.symmetric_warp import symmetric_warp
from lightning_vfe.sampling.walkers import Walkers

FIELD = "energy_electrons"
"""Electrons of the differences of energies, (W, 2, T, h, N, 3): h chains at each of T twists, in two halves."""
LARGEST_NOISE = 1e6
"""Of a decision: such a one is never accepted, and must not spoil the averages."""


@dataclass(frozen=True)
class CoupledDensity:
    """exp(-E(x)/kT), and a density p_s(x) that is like it, and cheap.

    Attributes:
        surrogate: ln p_s(x) up to a constant, (W, N, 3) -> (W,), the same function during a sweep.
        electrons: |psi_x|^2.
        energies: real part of E_loc in Ha of the electrons of walkers, (W, B).
        twists: over which E(x) is averaged.  # (T, 3)
        weights: of the twists, which add up to one.  # (T,)
    """

    surrogate: LogProb
    electrons: ElectronTarget
    energies: Callable[[Walkers], Tensor]
    twists: Tensor
    weights: Tensor


class ElectronSteps(NamedTuple):
    """How the electrons of the differences move before each decision.

    Attributes:
        num_walkers: electron walkers of each proton walker, a multiple of 2 T.
        rule: their moves.
        width: of these moves.  # ()
        num_steps: number of these moves.
    """

    num_walkers: int
    rule: Proposal
    width: Tensor
    num_steps: int


def move_by_energy(
    walkers: Walkers,
    density: CoupledDensity,
    rule: Proposal,
    width: Tensor,
    num_steps: int,
    steps: ElectronSteps,
    cell: PeriodicCell,
) -> ProtonMove:
    """A Metropolis chain on p_s from x to y, which is then accepted with probability

        min(1, exp(-delta/kT - u) p_s(x) / p_s(y)),

    or else the walker stays at x. delta is the estimate of E(y) - E(x) by `energy_difference`, averaged over the
    twists, and u the penalty of its noise. Whatever p_s is, the protons are distributed as exp(-E(x)/kT): the flow
    brings no error. A proposal whose electrons cannot be carried from x to y one to one is rejected.

    Args:
        walkers: where the protons are; the field `energy_electrons` is updated, and made where there is none.
        density: E(x) and p_s.
        rule: moves of the chain on p_s.
        width: of these moves.  # ()
        num_steps: number of these moves.
        steps: moves of the electrons.
        cell: the periodic cell.

    Source: Ceperley and Dewing, J. Chem. Phys. 110, 9812 (1999); Pierleoni, Ceperley and Holzmann, Phys. Rev. Lett. 93,
    146402 (2004); for p_s see `move_by_surrogate`.
    """
    x = walkers.protons
    first = rule.evaluate(density.surrogate, x)
    last, moved = metropolis(density.surrogate, first, rule, width, num_steps, walkers.random, cell.wrap)
    sides = _Sides(walkers, density, last.displacement, cell)
    delta, found, at_x, at_y = sides.compare(_electrons(walkers, density, steps.num_walkers), steps)
    chi_squared = delta.variance / walkers["kT"].square()
    lost = penalty(chi_squared, delta.freedom)
    log_ratio = first.log_prob - last.log_prob - delta.value / walkers["kT"] - lost
    uniform = walkers.random.uniform(log_ratio.shape, dtype=log_ratio.dtype)
    accept = found & (uniform.log() < log_ratio)  # false where the ratio is not a number
    moves, chains = accept[:, None, None], accept[(...,) + (None,) * (at_x.ndim - 1)]
    walkers[FIELD] = cell.wrap(torch.where(chains, at_y, at_x))
    fractions = {
        "proton_acceptance": (moved, num_steps),
        "ceimc_acceptance": (accept, 1),
        "ceimc_noise": (_bounded(chi_squared), 1),
        "ceimc_noise_per_freedom": (_bounded(chi_squared / delta.freedom), 1),
        "ceimc_penalty": (_bounded(lost), 1),
        "ceimc_failed_warps": (~found, 1),
    }
    protons = torch.where(moves, last.positions, x)
    displacement = torch.where(moves, last.displacement, torch.zeros_like(x))
    return ProtonMove(protons, displacement, fractions, {"num_stranded": num_not_finite(first.log_prob)}, adapts=False)


class _Sides:
    """x and y of a decision as walkers of electron chains: each proton walker stands twice, at each of T twists.

    Args:
        walkers: at x.
        density: of the protons.
        displacement: y - x, not wrapped.  # (W, N, 3)
        cell: the periodic cell.
    """

    def __init__(self, walkers: Walkers, density: CoupledDensity, displacement: Tensor, cell: PeriodicCell) -> None:
        count, sets, x = len(walkers), (2, len(density.twists)), walkers.protons
        self._density, self._cell, self._random = density, cell, walkers.random
        self._shape = (count, *sets)
        self._ends = self._of_sets(torch.stack([x, x + displacement], dim=1)[:, :, None])
        self._moves = self._of_sets(torch.stack([displacement, -displacement], dim=1)[:, :, None])
        twist = density.twists.to(x)[None, None].expand(*self._shape, 3)
        state = {name: walkers[name][:, None, None].expand(self._shape).flatten() for name in ("rs", "kT")}
        self._state = state | {"twist": twist.flatten(0, 2)}

    def _of_sets(self, protons: Tensor) -> Tensor:
        """(W, 2, 1, N, 3) -> (W 2 T, N, 3)."""
        return protons.expand(*self._shape, *protons.shape[-2:]).flatten(0, 2)

    def _walkers(self, protons: Tensor, electrons: Tensor) -> Walkers:
        fields = {"protons": self._cell.wrap(protons), "electrons": self._cell.wrap(electrons), **self._state}
        return Walkers(fields, {}, self._random)

    def compare(self, electrons: Tensor, steps: ElectronSteps) -> tuple[Difference, Tensor, Tensor, Tensor]:
        """E(y) - E(x): the first half of the electrons stays with x, the second goes to y, and both are equilibrated.

        Args:
            electrons: all at x.  # (W, 2, T, h, N, 3)
            steps: their moves.

        Returns:
            The estimate  # (W,), whether all electrons could be carried from x to y  # (W,), and the electrons at x
            and at y, not wrapped  # (W, 2, T, h, N, 3) each.
        """
        density, there = self._density, self._ends + self._moves
        start, moves = self._ends.view(*self._shape, *self._ends.shape[1:]), self._moves.view(*self._shape, -1, 3)
        carried = symmetric_warp(
            self._cell, electrons[:, 1].flatten(0, 1), start[:, 0].flatten(0, 1), moves[:, 0].flatten(0, 1)
        )
        shape = electrons.shape
        begin = torch.stack([electrons[:, 0], carried.positions.view(shape[:1] + shape[2:])], dim=1)
        own = self._walkers(self._ends, begin.flatten(0, 2))
        moved = move_electrons(own, density.electrons, steps.rule, steps.width, steps.num_steps, self._cell)
        own["electrons"] = moved.state.positions
        warp = symmetric_warp(self._cell, own.electrons, self._ends, self._moves)
        other = self._walkers(there, warp.positions)
        of_other = density.electrons(other)(other.electrons)
        log_ratio = (of_other - moved.state.log_prob + warp.log_jacobian).unflatten(0, self._shape)
        here, away = (density.energies(each).unflatten(0, self._shape) for each in (own, other))  # (W, 2, T, h)
        # Of the second half, "own" is y, and "other" is x.
        values = [torch.stack(pair, dim=-2) for pair in _by_place(here, away)]  # (W, T, 2, h)
        ratio = torch.stack([log_ratio[:, 0], -log_ratio[:, 1]], dim=-2)
        delta = weighted_sum(energy_difference(ratio, *values), density.weights.to(here))
        found = torch.cat([each.view(len(electrons), -1) for each in (warp.found, carried.found)], dim=1).all(dim=1)
        ends = own.electrons.view(shape), warp.positions.view(shape)
        at_x, at_y = (torch.stack(pair, dim=1) for pair in _by_place(*ends))
        # Those that cannot come back from y have never left x.
        at_x[:, 1] = torch.where(found.view(-1, *(1,) * (at_x.ndim - 2)), at_x[:, 1], electrons[:, 1])
        return delta, found, at_x, at_y


def _by_place(own: Tensor, other: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Both halves at x, and both halves at y, from both at their own place and at the other one.  # (W, 2, ...)"""
    return (own[:, 0], other[:, 1]), (other[:, 0], own[:, 1])


def _electrons(walkers: Walkers, density: CoupledDensity, count: int) -> Tensor:
    """Electrons of the differences, at the protons; new ones are copies of the walkers'.  # (W, 2, T, h, N, 3)"""
    known = walkers.fields.get(FIELD)
    if known is not None:
        return known
    source = walkers.electrons
    chosen = torch.arange(count, device=source.device) % source.shape[1]
    num_twists = len(density.twists)
    electrons: Tensor = source[:, chosen].unflatten(1, (2, num_twists, count // (2 * num_twists)))
    return electrons


def _bounded(values: Tensor) -> Tensor:
    return torch.nan_to_num(values.to(torch.float64), nan=LARGEST_NOISE, posinf=LARGEST_NOISE).clamp(max=LARGEST_NOISE)
