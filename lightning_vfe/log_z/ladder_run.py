"""The chains of an integration of ln Z: windows, gaps between them, sampling until the error is small."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lightning_vfe.log_z.between import Between, neighbour_overlaps
from lightning_vfe.log_z.equilibrium import Equilibrium, find_equilibrium
from lightning_vfe.log_z.journal import PART, SweepJournal
from lightning_vfe.log_z.mbar import Reweighted, reweight
from lightning_vfe.log_z.path import (
    coarse_points,
    coefficients,
    interval_lengths,
    spaced_points,
    with_more_points,
)
from lightning_vfe.log_z.replica_exchange import Energy, ReplicaExchange
from lightning_vfe.log_z.result import LARGEST_R_HAT
from lightning_vfe.log_z.settings import LogZSettings
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.sampling.proposals import make_proposal
from lightning_vfe.sampling.random import WalkerRandom

Progress = Callable[[str, int, int], None]
"""What is being done, how many of how many sweeps are done."""

_PILOT_ROUNDS = 3
_MOST_INSERTIONS = 4
# Halvings of the way from one target to the next.
_MOST_REFINEMENTS = 3
# Gaussians that many standard deviations apart have too little in common for MBAR's equations to be solved.
_GAP = 4.0
_MOST_ADDED = 20
# Sampling goes on until the error estimated on the way is that much below the wanted one: the bootstrap has the last
# word, and its own uncertainty.
_MARGIN = 1.15


@dataclass
class LadderRun:
    """The parts of one integration, in their order: pilot, without_gaps, produce.

    Args:
        energies: E_1, ..., E_M in Ha for the whole cell.
        cell: the periodic cell.
        kT: in Ha.
        settings: of the integration.
        device: where the chains run.
        progress: called after every sweep.
        stages: the potentials of the path as sums of the energies.  # (S, M)
        targets: numbers from 1 to S of the path's potentials whose ln Z is wanted.
        journal: keeps the samples.
    """

    energies: Sequence[Energy]
    cell: PeriodicCell
    kT: float
    settings: LogZSettings
    device: torch.device | str
    progress: Progress
    stages: Tensor
    targets: Sequence[int]
    journal: SweepJournal
    streams_used: int = 0
    calls: int = 0

    def rows(self, chains: ReplicaExchange) -> np.ndarray:
        """Numbers of the windows of the targets."""
        return np.searchsorted(chains.points, np.asarray(self.targets) - 1e-9)

    def pilot(self) -> ReplicaExchange:
        """Chains on windows of equal thermodynamic length, at the last of a few guesses."""
        settings = self.settings
        points = coarse_points(len(self.stages))
        random = self._random(len(points))
        shape = (len(points), settings.num_chains, self.cell.num_atoms, 3)
        positions = self.cell.length * random.uniform(shape, dtype=torch.get_default_dtype())
        width = math.log(0.1 * self.cell.length)
        chains = self._chains(points, positions, positions.new_full((len(points),), width), random)
        for number in range(_PILOT_ROUNDS):
            what = f"pilot {number + 1} of {_PILOT_ROUNDS}, {len(chains.points)} windows"
            samples = self.sweeps(chains, settings.pilot_sweeps, adapt=True, what=what)
            lengths = _lengths(chains.points, samples[len(samples) // 3 :])
            points = spaced_points(chains.points, lengths, settings.spacing, settings.max_windows_per_stage)
            chains = self.restart(chains, points)
        self.sweeps(chains, settings.pilot_sweeps, adapt=True, what=f"equilibrating {len(points)} windows")
        return chains

    def joined(self, between: Between | None) -> tuple[LadderRun, ReplicaExchange]:
        """The run and its pilot; with further targets where neighbouring ones overlap by less than min_overlap."""
        run, chains = self, self.pilot()
        for _ in range(_MOST_REFINEMENTS if between is not None else 0):
            samples = run.sweeps(chains, run.settings.pilot_sweeps, adapt=False, what="overlap of the states")
            overlaps = neighbour_overlaps(samples, coefficients(chains.points).numpy(), run.rows(chains).tolist())
            poor = np.flatnonzero(overlaps < run.settings.min_overlap).tolist()
            if not poor or between is None:
                break
            energies, stages, targets = between(poor, overlaps[poor].tolist())
            run = replace(run, energies=energies, stages=stages, targets=targets)
            chains = run.pilot()
        return run, chains

    def without_gaps(self, chains: ReplicaExchange) -> tuple[ReplicaExchange, np.ndarray]:
        """Add windows until all neighbours overlap; the chains, and their first samples with frozen widths.

        Raises:
            FloatingPointError: windows remain that have nothing in common.
        """
        settings = self.settings
        for insertion in range(_MOST_INSERTIONS + 1):
            chains.reset_counts()
            samples = self.sweeps(chains, settings.num_sweeps, False, f"{len(chains.points)} windows")
            lengths = _lengths(chains.points, samples)
            has_gap = bool((lengths > _GAP).any())
            if has_gap:
                extra = np.where(lengths > _GAP, np.ceil(lengths / 2) - 1, 0).clip(max=_MOST_ADDED).astype(int)
            else:
                rows = range(len(chains.points))
                overlaps = neighbour_overlaps(samples, coefficients(chains.points).numpy(), rows)
                extra = (overlaps < settings.min_overlap).astype(int)
            if not extra.any() or insertion == _MOST_INSERTIONS:
                break
            chains = self.restart(chains, with_more_points(chains.points, extra))
            what = f"equilibrating {len(chains.points)} windows"
            self.sweeps(chains, settings.pilot_sweeps, adapt=True, what=what)
        if has_gap:
            k = int(lengths.argmax())
            raise FloatingPointError(
                f"windows {chains.points[k]:.4g} and {chains.points[k + 1]:.4g} of the path have nothing in common "
                f"after adding windows {_MOST_INSERTIONS} times; raise log_z.max_windows_per_stage"
            )
        return chains, samples

    def produce(self, chains: ReplicaExchange, samples: np.ndarray) -> tuple[np.ndarray, Equilibrium, Reweighted]:
        """Go on sampling with frozen widths until the error and R-hat are small enough, or until max_sweeps."""
        settings = self.settings
        while True:
            equilibrium = find_equilibrium(samples, chains.points)
            found = reweight(samples, coefficients(chains.points).numpy(), equilibrium.steps)
            rows = self.rows(chains)
            error = _MARGIN * max(found.asymptotic_errors[rows].max(), found.ladder_errors[rows].max())
            ratio = error / (settings.target_error_per_atom * self.cell.num_atoms)
            is_done = ratio <= 1 and equilibrium.r_hat.max() <= LARGEST_R_HAT
            length = len(samples)
            if is_done or length >= settings.max_sweeps:
                return samples, equilibrium, found
            # The error falls with the square root of the length.
            wanted = min(math.ceil(length * min(4.0, max(1.5, ratio**2))), settings.max_sweeps)
            more = self.sweeps(chains, wanted - length, False, f"{len(chains.points)} windows")
            samples = np.concatenate([samples, more])

    def sweeps(self, chains: ReplicaExchange, count: int, adapt: bool, what: str) -> np.ndarray:
        """Reduced energies of `count` sweeps.  # (count, K, C, S)"""
        call, reduced = self.calls, []
        self.calls += 1
        for part, first in enumerate(range(0, count, PART)):
            size = min(PART, count - first)
            kept = self.journal.read(call, part, size)
            if kept is None:
                fresh = []
                for number in range(size):
                    fresh.append(chains.sweep(self.settings.num_steps, adapt).cpu())
                    self.progress(what, first + number + 1, count)
                kept = {"reduced": torch.stack(fresh), "chains": chains.state_dict()}
                self.journal.write(call, part, kept)
            else:
                chains.load_state_dict(kept["chains"])
                self.progress(what, first + size, count)
            reduced.append(kept["reduced"])
        return torch.cat(reduced).numpy()

    def restart(self, chains: ReplicaExchange, points: np.ndarray) -> ReplicaExchange:
        """Chains on another ladder: every window takes over the configurations of the nearest old one."""
        nearest = np.abs(points[:, None] - chains.points).argmin(axis=1)
        log_width = np.interp(points, chains.points, chains.log_width.double().cpu().numpy())
        width = torch.from_numpy(log_width).to(chains.log_width)
        return self._chains(points, chains.positions[nearest.tolist()], width, self._random(len(points)))

    def _chains(self, points: np.ndarray, positions: Tensor, width: Tensor, random: WalkerRandom) -> ReplicaExchange:
        rule = make_proposal(self.settings.proposal, "proposal")
        return ReplicaExchange(self.energies, self.cell, self.kT, points, positions, width, rule, random, self.stages)

    def _random(self, num_windows: int) -> WalkerRandom:
        """Random numbers that no earlier ladder has used."""
        first = self.streams_used
        self.streams_used += num_windows
        return WalkerRandom(range(first, first + num_windows), self.settings.seed, self.device)


def _lengths(points: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Thermodynamic lengths of the intervals from reduced energies (steps, K, C, S)  # (K - 1,)."""
    pooled = np.moveaxis(samples, 2, 1)
    return interval_lengths(points, pooled.reshape(-1, *pooled.shape[2:]))
