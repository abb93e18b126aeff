"""Configurations to label: decorrelated samples of a classical potential at (N, rs, T)."""

from __future__ import annotations

import math
from collections.abc import Callable
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

CHUNK = 10
"""Steps between two adaptations of the width, and between two energies of the series."""


@dataclass(frozen=True)
class ChainSettings:
    """Chains that make configurations.

    Attributes:
        num_walkers: independent chains.
        equilibration_steps: steps that adapt the width and are thrown away.
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
class Samples:
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
) -> Samples:
    """Samples of exp(-E(z)/kT) by the Metropolis-adjusted Langevin algorithm, all chains as one batch.

    The chains start from random positions no two of which are closer than rs. Snapshots of all chains are taken every
    `spacing` steps until there are `count` configurations.

    Args:
        energy: E in Ha of the whole cell, periodic and differentiable, (W, N, 3) -> (W,).
        cell: the periodic cell.
        temperature_kelvin: T in K.
        count: C, the number of configurations.
        settings: of the chains.
        seed: of all random numbers.

    Raises:
        FloatingPointError: a chain stands where the energy is not finite.
    """
    thermal = KELVIN_TO_HARTREE * temperature_kelvin
    num_walkers = min(settings.num_walkers, count)
    random = WalkerRandom(range(1), seed)
    start = random.per_group(lambda generator, share: make_structure("random", cell, share, generator), num_walkers)
    chains = Chains(lambda z: -energy(z) / thermal, cell, start, LangevinProposal(), 0.1, random)
    for _ in range(math.ceil(settings.equilibration_steps / CHUNK)):
        chains.advance(CHUNK, adapt=True)
    snapshots, series, total = [], [], 0.0
    for _ in range(math.ceil(count / num_walkers)):
        for _ in range(math.ceil(settings.spacing / CHUNK)):
            total += chains.advance(CHUNK)
            series.append(chains.state.log_prob.double())
        snapshots.append(chains.state.positions)
    if not torch.isfinite(chains.state.log_prob).all():
        raise FloatingPointError("a configuration to label has an energy that is not finite: the potential broke down")
    time = integrated_autocorrelation_time(torch.stack(series)) * CHUNK
    return Samples(torch.cat(snapshots)[:count], total / len(series), float(np.float64(time)))
