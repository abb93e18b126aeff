r"""ln Z of a potential, from the ideal gas along a path of potentials E_1, ..., E_S:

    ln Z = ln int exp(-E_S(z)/kT) d^{3N}z = 3N ln L + sum over neighbouring windows of the path (no 1/N!).

A pilot finds windows of equal thermodynamic length; the chains of all windows move together and swap; where neighbours
overlap too little windows are added; MBAR puts the samples together. Known are callables only, never a model: the path
may be [Yukawa, SchNet], [harmonic wells] or [Ewald energy of a plasma].

Source of the two-stage path: Morales, Pierleoni and Ceperley, Phys. Rev. E 81, 021202 (2010).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightning_vfe.errors import SettingError
from lightning_vfe.log_z.mbar import Equilibrium, Reweighted, bootstrap_error, find_equilibrium, reweight
from lightning_vfe.log_z.path import (
    coarse_points,
    coefficients,
    interval_lengths,
    spaced_points,
    with_more_points,
)
from lightning_vfe.log_z.replica_exchange import Energy, ReplicaExchange
from lightning_vfe.log_z.result import LARGEST_R_HAT, LogZResult, reasons_against, window_reports
from lightning_vfe.log_z.settings import LogZSettings
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.sampling.proposals import make_proposal
from lightning_vfe.sampling.random import WalkerRandom

Progress = Callable[[str, int, int], None]
"""What is being done, how many of how many sweeps are done."""

_PILOT_ROUNDS = 3
_MOST_INSERTIONS = 4
# Gaussians that many standard deviations apart have too little in common for MBAR's equations to be solved.
_GAP = 4.0
_MOST_ADDED = 20
# Sampling goes on until the error estimated on the way is that much below the wanted one: the bootstrap has the last
# word, and its own uncertainty.
_MARGIN = 1.15


def integrate(
    energies: Sequence[Energy],
    cell: PeriodicCell,
    kT: float,
    settings: LogZSettings | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> LogZResult:
    """ln Z of the last potential of a path that begins at the ideal gas.

    Args:
        energies: E_1, ..., E_S in Ha for the whole cell, each (..., N, 3) -> (...), periodic in the cell and
            differentiable; none gives the ideal gas.
        cell: the periodic cell.
        kT: in Ha.
        settings: numbers of chains and sweeps, and what is demanded of the result.
        device: where the chains run.
        progress: called after every sweep.

    Returns:
        ln Z with its error and all diagnostics; `converged` says whether to trust it, `reasons` why not.

    Raises:
        ValueError: kT is not positive.
        FloatingPointError: an energy is not a number, or windows cannot be joined.
    """
    if not (math.isfinite(kT) and kT > 0):
        raise SettingError("kT", kT, "must be positive, in Ha", "system.temperature_kelvin sets it")
    settings = settings or LogZSettings()
    ideal = 3 * cell.num_atoms * math.log(cell.length)
    if not energies:
        return LogZResult(ideal, 0.0, 0.0, 0.0, (), np.ones((1, 1)), True, (), None)
    run = _Run(energies, cell, kT, settings, device, progress or (lambda _what, _done, _total: None))
    chains, samples = run.without_gaps(run.pilot())
    samples, equilibrium, found = run.produce(chains, samples)
    bootstrap = bootstrap_error(
        samples,
        coefficients(chains.points).numpy(),
        equilibrium.steps,
        found.log_z,
        settings.num_bootstraps,
        settings.seed,
    )
    error = max(bootstrap, found.ladder_error)
    windows = window_reports(chains, found, equilibrium, ideal)
    reasons = reasons_against(windows, error / cell.num_atoms, found, settings)
    return LogZResult(
        log_z=ideal + float(found.log_z[-1]),
        log_z_error=error,
        bootstrap_error=bootstrap,
        ladder_error=found.ladder_error,
        windows=windows,
        overlap=found.overlap,
        converged=not reasons,
        reasons=reasons,
        positions=chains.positions[-1],
    )


@dataclass
class _Run:
    """The stages of one integration."""

    energies: Sequence[Energy]
    cell: PeriodicCell
    kT: float
    settings: LogZSettings
    device: torch.device | str
    progress: Progress
    streams_used: int = 0

    def pilot(self) -> ReplicaExchange:
        """Chains on windows of equal thermodynamic length, at the last of a few guesses."""
        settings = self.settings
        points = coarse_points(len(self.energies))
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
                steps = find_equilibrium(samples, chains.points).steps
                found = reweight(samples, coefficients(chains.points).numpy(), steps)
                extra = (found.neighbour_overlap < settings.min_overlap).astype(int)
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
            error = _MARGIN * max(found.asymptotic_error, found.ladder_error)
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
        reduced = []
        for number in range(count):
            reduced.append(chains.sweep(self.settings.num_steps, adapt))
            self.progress(what, number + 1, count)
        return torch.stack(reduced).cpu().numpy()

    def restart(self, chains: ReplicaExchange, points: np.ndarray) -> ReplicaExchange:
        """Chains on another ladder: every window takes over the configurations of the nearest old one."""
        nearest = np.abs(points[:, None] - chains.points).argmin(axis=1)
        log_width = np.interp(points, chains.points, chains.log_width.double().cpu().numpy())
        width = torch.from_numpy(log_width).to(chains.log_width)
        return self._chains(points, chains.positions[nearest.tolist()], width, self._random(len(points)))

    def _chains(self, points: np.ndarray, positions: Tensor, width: Tensor, random: WalkerRandom) -> ReplicaExchange:
        rule = make_proposal(self.settings.proposal, "proposal")
        return ReplicaExchange(self.energies, self.cell, self.kT, points, positions, width, rule, random)

    def _random(self, num_windows: int) -> WalkerRandom:
        """Random numbers that no earlier ladder has used."""
        first = self.streams_used
        self.streams_used += num_windows
        return WalkerRandom(range(first, first + num_windows), self.settings.seed, self.device)


def _lengths(points: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Thermodynamic lengths of the intervals from reduced energies (steps, K, C, S)  # (K - 1,)."""
    pooled = np.moveaxis(samples, 2, 1)
    return interval_lengths(points, pooled.reshape(-1, *pooled.shape[2:]))
