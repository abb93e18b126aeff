"""The curves of a measurement: g(r), S(k) and n(k) of each state point over the steps that count."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_vfe.optim.collectives import Collectives
from lightning_vfe.physics.block_series import BlockSeries
from lightning_vfe.physics.momentum_distribution import MomentumDistribution, MomentumDistributions
from lightning_vfe.physics.observables import RadialDistribution, RadialDistributions
from lightning_vfe.physics.state_point import WalkerStates
from lightning_vfe.physics.static_structure import StructureFactor, StructureFactors
from lightning_vfe.sampling.random import WalkerRandom
from lightning_vfe.state.variational_state import VariationalState

MOMENTUM_SEED = 2**31
"""Added to the seed of the chains, for the random numbers of n(k)."""


class CurveSeries:
    """Collects the curves while the chains run.

    Args:
        state: networks and walkers.
        momentum_points: electrons that are moved in every sample for n(k); 0 leaves it out, and so do random twists.
    """

    def __init__(self, state: VariationalState, momentum_points: int = 0) -> None:
        cell, num_up = state.system.cell, state.system.num_up
        self.state = state
        self._momentum_points = 0 if state.strata.twists.is_random else momentum_points
        self._radial = BlockSeries(lambda: RadialDistributions(cell, num_up=num_up))
        self._structure = BlockSeries(lambda: StructureFactors(cell))
        self._momentum: BlockSeries[MomentumDistributions] | None = None

    def add(self, protons: Tensor, electrons: Tensor, states: WalkerStates) -> None:
        """Count a batch.

        Args:
            protons: in units of rs.  # (W, N, 3)
            electrons: in units of rs.  # (W, B, N, 3)
            states: of the walkers.
        """
        self._radial.update(protons, electrons)
        self._structure.update(protons, electrons)
        if self._momentum_points:
            if self._momentum is None:
                self._momentum = self._momentum_series(states)
            self._momentum.update(protons, electrons)

    def _momentum_series(self, states: WalkerStates) -> BlockSeries[MomentumDistributions]:
        """n(k) of these walkers, with random numbers of its own: the chains do not feel it."""
        walkers, wavefunction = self.state.place(), self.state.wavefunction
        random = WalkerRandom(walkers.random.groups, walkers.random.seed + MOMENTUM_SEED, walkers.protons.device)
        arguments = self.state.system.cell, wavefunction, states, random.uniform, self._momentum_points
        return BlockSeries(lambda: MomentumDistributions(*arguments))

    def radial(self, number: int, start: int, stratum: Tensor) -> dict[str, RadialDistribution]:
        """g(r) of all kinds of pairs.

        Args:
            number: of the state point.
            start: the first step that counts.
            stratum: of all proton walkers of all processes.  # (W,)
        """
        return self._radial.empty.result(*self._of_state(self._radial, number, start, stratum))

    def structure(self, number: int, start: int, stratum: Tensor) -> dict[str, StructureFactor]:
        """S(k) of all kinds; the arguments are those of `radial`."""
        return self._structure.empty.result(*self._of_state(self._structure, number, start, stratum))

    def _of_state(
        self, series: BlockSeries[Any], number: int, start: int, stratum: Tensor
    ) -> tuple[dict[str, Tensor], Tensor, float]:
        """Averages of each walker of a state point, the weights of these walkers, and rs."""
        strata, gather = self.state.strata, Collectives().gather
        own = strata.state_index(stratum) == number
        walkers = {name: gather(rows).cpu()[own] for name, rows in series.per_walker(start).items()}
        return walkers, strata.weights(stratum[own]), strata.points[number].rs

    def momentum(self, number: int, start: int, stratum: Tensor) -> MomentumDistribution | None:
        """n(k); None where it was not measured. The arguments are those of `radial`."""
        if self._momentum is None:
            return None
        gather, strata, collector = Collectives().gather, self.state.strata, self._momentum.empty
        own, twists = strata.state_index(stratum) == number, gather(collector.states.twist).cpu()
        (values,) = (gather(rows).cpu() for rows in self._momentum.per_walker(start).values())
        return collector.result(values[own], twists[own], strata.weights(stratum[own]), strata.points[number].rs)
