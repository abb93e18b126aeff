"""Is a potential safe to sample for long? Chains that look for the holes of a trained network."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightning_vfe.log_z.replica_exchange import Energy
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.statistics import split_r_hat
from lightning_vfe.sampling.boltzmann import BoltzmannChains
from lightning_vfe.sampling.random import WalkerRandom


@dataclass(frozen=True)
class Stability:
    """What a long run met.

    Attributes:
        smallest_distance: of any two protons, images included, in bohr.
        lowest_energy: of any sample, Ha per atom.
        mean_energy: of the second half, Ha per atom.
        energy_drift: mean of the last quarter minus that of the second, in units of the samples' standard deviation.
        r_hat: split R-hat of the second half's energies over the chains.
        acceptance: accepted fraction of the moves in the second half.
    """

    smallest_distance: float
    lowest_energy: float
    mean_energy: float
    energy_drift: float
    r_hat: float
    acceptance: float


def long_run(
    energy: Energy,
    cell: PeriodicCell,
    kT: float,
    num_chains: int = 16,
    num_sweeps: int = 400,
    num_steps: int = 10,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Stability:
    """Sample exp(-E/kT) from protons at random, and report the extremes.

    A potential with a hole (a spurious minimum at short distances, say) shows it as a smallest distance far below
    physical ones, an energy that falls on and on, or chains that disagree.

    Args:
        energy: E in Ha for the whole cell.
        cell: the periodic cell.
        kT: in Ha.
        num_chains: independent chains.
        num_sweeps: recorded samples of each chain, at least 16; widths adapt during the first half.
        num_steps: Metropolis steps between samples.
        seed: of all random numbers.
        device: where the chains run.

    Raises:
        FloatingPointError: the energy becomes not a number, or minus infinity.
    """
    if num_sweeps < 16:
        raise ValueError(f"num_sweeps = {num_sweeps} must be at least 16")
    random = WalkerRandom(range(1), seed, device)
    start = cell.length * random.uniform((num_chains, cell.num_atoms, 3), dtype=torch.get_default_dtype())
    chains = BoltzmannChains(energy, cell, kT, start, 0.05 * cell.length, random)
    energies, distance, accepted = [], math.inf, []
    half = num_sweeps // 2
    adapting, frozen = chains.samples(half, num_steps, adapt=True), chains.samples(num_sweeps - half, num_steps)
    for sweep, sample in enumerate(itertools.chain(adapting, frozen)):
        accepted.append(sample.acceptance)
        energy_per_atom = sample.energy.double() / cell.num_atoms
        if torch.isnan(energy_per_atom).any() or (energy_per_atom == -torch.inf).any():
            raise FloatingPointError(f"the potential is not a number, or minus infinity, in sweep {sweep}")
        energies.append(energy_per_atom.cpu().numpy())
        distance = min(distance, float(_pair_distances(cell, sample.positions).min()))
    series, quarter = np.stack(energies), num_sweeps // 4
    later = series[-2 * quarter :]
    drift = series[-quarter:].mean() - series[quarter : 2 * quarter].mean()
    return Stability(
        smallest_distance=distance,
        lowest_energy=float(series.min()),
        mean_energy=float(later.mean()),
        energy_drift=float(drift / max(later.std(), 1e-300)),
        r_hat=split_r_hat(later),
        acceptance=float(np.mean(accepted[num_sweeps // 2 :])),
    )


def _pair_distances(cell: PeriodicCell, positions: Tensor) -> Tensor:
    """Distances of all pairs, nearest images  # (C, P); of a single proton, its distance to its own image."""
    first, second = torch.triu_indices(cell.num_atoms, cell.num_atoms, offset=1, device=positions.device)
    if not len(first):
        return positions.new_full((len(positions), 1), cell.length)
    return cell.minimum_image(positions[:, first] - positions[:, second]).norm(dim=-1)
