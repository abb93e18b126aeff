"""Configurations to label: decorrelated samples of a classical potential at (N, rs, T)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.statistics import integrated_autocorrelation_time
from lightning_vfe.physics.structures import make_structure
from lightning_vfe.physics.units import KELVIN_TO_HARTREE
from lightning_vfe.sampling.adaptation import adapt_log_width
from lightning_vfe.sampling.metropolis import metropolis
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
                raise ValueError(f"label.chains.{name} = {value} must be at least 1")


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
    rule = LangevinProposal()

    def log_prob(positions: Tensor) -> Tensor:
        return -energy(positions) / thermal

    state = rule.evaluate(log_prob, start)
    log_width = start.new_tensor(math.log(0.1))
    limits = math.log(1e-4), math.log(cell.length / 2)
    for _ in range(math.ceil(settings.equilibration_steps / CHUNK)):
        state, accepted = metropolis(log_prob, state, rule, log_width.exp(), CHUNK, random, cell.wrap)
        acceptance = accepted.double().mean() / CHUNK
        log_width = adapt_log_width(log_width, acceptance, rule.target_acceptance, 1.0, *limits)
    snapshots, series, total = [], [], 0.0
    chunks = math.ceil(settings.spacing / CHUNK)
    for _ in range(math.ceil(count / num_walkers)):
        for _ in range(chunks):
            state, accepted = metropolis(log_prob, state, rule, log_width.exp(), CHUNK, random, cell.wrap)
            series.append(state.log_prob.double())
            total += float(accepted.double().mean()) / CHUNK
        snapshots.append(state.positions)
    if not torch.isfinite(state.log_prob).all():
        raise FloatingPointError("a configuration to label has an energy that is not finite: the potential broke down")
    time = integrated_autocorrelation_time(torch.stack(series)) * CHUNK
    return Samples(torch.cat(snapshots)[:count], total / len(series), float(np.float64(time)))
