"""Samples of exp(-E/kT): Langevin chains of a potential's Boltzmann distribution."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightning_vfe.errors import SettingError
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.statistics import integrated_autocorrelation_time
from lightning_vfe.physics.structures import make_structure
from lightning_vfe.physics.units import KELVIN_TO_HARTREE
from lightning_vfe.sampling.chains import Chains
from lightning_vfe.sampling.proposals import LangevinProposal
from lightning_vfe.sampling.random import WalkerRandom

STRIDE = 10
"""Steps between two samples, and between two adaptations of the width."""
FIRST_WIDTH = 0.1
"""Of the moves of sample_configurations, in bohr, before it adapts."""


@dataclass(frozen=True)
class Sample:
    """Where C chains stand.

    Attributes:
        positions: in [0, L), in bohr.  # (C, N, 3)
        energy: E in Ha of the whole cell.  # (C,)
        acceptance: accepted fraction of the steps since the sample before.
    """

    positions: Tensor
    energy: Tensor
    acceptance: float


class BoltzmannChains:
    """C chains of exp(-E(z)/kT) by the Metropolis-adjusted Langevin algorithm, all as one batch.

    Args:
        energy: E in Ha of the whole cell, periodic and differentiable, (C, N, 3) -> (C,).
        cell: the periodic cell.
        kT: in Ha.
        start: first positions in bohr.  # (C, N, 3)
        width: of the first moves in bohr.
        random: streams of random numbers, whose groups divide the chains.
    """

    def __init__(
        self,
        energy: Callable[[Tensor], Tensor],
        cell: PeriodicCell,
        kT: float,
        start: Tensor,
        width: float,
        random: WalkerRandom,
    ) -> None:
        self.kT = kT
        self._chains = Chains(lambda z: -energy(z) / kT, cell, start, LangevinProposal(), width, random)

    def samples(self, count: int, stride: int = STRIDE, adapt: bool = False) -> Iterator[Sample]:
        """The next samples of all chains.

        Args:
            count: number of samples.
            stride: Metropolis steps before each sample.
            adapt: adapt the width after each sample; it must stay as it is while averages are taken.
        """
        for _ in range(count):
            acceptance = self._chains.advance(stride, adapt)
            state = self._chains.state
            yield Sample(state.positions, -self.kT * state.log_prob, acceptance)


@dataclass(frozen=True)
class ChainSettings:
    """Chains that make configurations.

    Attributes:
        num_walkers: independent chains.
        equilibration_steps: steps that adapt the width and are discarded.
        spacing: steps between two configurations of one chain.

    Raises:
        ValueError: a number is not positive.
    """

    num_walkers: int = 32
    equilibration_steps: int = 500
    spacing: int = 200

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise SettingError(name, value, "must be at least 1")


@dataclass(frozen=True)
class Configurations:
    """Result of sample_configurations.

    Attributes:
        positions: in [0, L), in bohr.  # (C, N, 3)
        acceptance: of the steps after equilibration.
        autocorrelation_steps: of the energy, in steps; nan with too few steps to know.
    """

    positions: Tensor
    acceptance: float
    autocorrelation_steps: float


def sample_configurations(
    energy: Callable[[Tensor], Tensor],
    cell: PeriodicCell,
    temperature_kelvin: float,
    count: int,
    settings: ChainSettings,
    seed: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Configurations:
    """Decorrelated samples of exp(-E(z)/kT).

    The chains start from random positions no two of which are closer than rs. Snapshots of all chains are taken every
    `spacing` steps until there are `count` configurations.

    Args:
        energy: E in Ha of the whole cell, periodic and differentiable, (W, N, 3) -> (W,).
        cell: the periodic cell.
        temperature_kelvin: T in K.
        count: C, the number of configurations.
        settings: of the chains.
        seed: of all random numbers.
        progress: hears how many steps of how many are through.

    Raises:
        FloatingPointError: a chain stands where the energy is not finite.
    """
    num_walkers = min(settings.num_walkers, count)
    random = WalkerRandom(range(1), seed)
    start = random.per_group(lambda generator, share: make_structure("random", cell, share, generator), num_walkers)
    chains = BoltzmannChains(energy, cell, KELVIN_TO_HARTREE * temperature_kelvin, start, FIRST_WIDTH, random)
    per_snapshot, discarded = (math.ceil(steps / STRIDE) for steps in (settings.spacing, settings.equilibration_steps))
    num_samples = per_snapshot * math.ceil(count / num_walkers)
    for number, _ in enumerate(chains.samples(discarded, adapt=True), start=1):
        progress(number * STRIDE, (discarded + num_samples) * STRIDE)
    energies, acceptances, snapshots = [], [], []
    for number, sample in enumerate(chains.samples(num_samples), start=1):
        progress((discarded + number) * STRIDE, (discarded + num_samples) * STRIDE)
        energies.append(sample.energy.double())
        acceptances.append(sample.acceptance)
        if number % per_snapshot == 0:
            snapshots.append(sample.positions)
    if not torch.isfinite(energies[-1]).all():
        raise FloatingPointError("a sampled configuration has an energy that is not finite: the potential broke down")
    time = integrated_autocorrelation_time(torch.stack(energies)) * STRIDE
    acceptance = sum(acceptances) / len(acceptances)
    return Configurations(torch.cat(snapshots)[:count], acceptance, float(np.float64(time)))
