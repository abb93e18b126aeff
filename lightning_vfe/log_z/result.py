"""What an integration of ln Z returns: the value, its windows, and whether to trust it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from lightning_vfe.log_z.equilibrium import Equilibrium
from lightning_vfe.log_z.mbar import Reweighted
from lightning_vfe.log_z.replica_exchange import ReplicaExchange
from lightning_vfe.log_z.settings import LogZSettings

LARGEST_R_HAT = 1.05
_LEAST_SAMPLES = 50


@dataclass(frozen=True)
class WindowReport:
    """One window of the path.

    Attributes:
        point: s; its whole part is the stage, its fraction the share of the stage's second potential.
        log_z: ln Z of this window, with the ideal gas's 3N ln L.
        num_samples: independent samples used.
        inefficiency: sweeps from one independent sample to the next.
        r_hat: split R-hat of the energy differences over the chains.
        acceptance: accepted fraction of the moves.
        width: of the moves, in bohr.
        overlap_with_next: int p_1 p_2 / (p_1 + p_2) du with the next window, at most 1/2; None for the last window.
        swaps_with_next: accepted fraction of the swaps; None for the last window.
    """

    point: float
    log_z: float
    num_samples: int
    inefficiency: float
    r_hat: float
    acceptance: float
    width: float
    overlap_with_next: float | None
    swaps_with_next: float | None


@dataclass(frozen=True)
class LogZResult:
    """ln Z and how it came about.

    Attributes:
        log_z: ln of the integral of exp(-E/kT) over the cell, lengths in bohr, without 1/N!.
        log_z_error: its standard error, the larger of the next two.
        bootstrap_error: from resampling each window's uncorrelated samples.
        ladder_error: from the spread over the independent ladders of chains.
        windows: along the path, first the ideal gas.  # K
        overlap: overlap matrix of the windows.  # (K, K)
        converged: whether the result can be trusted.
        reasons: why not.
        positions: last configurations of the target's chains in bohr, equilibrated starts for others; None for the
            ideal gas.  # (C, N, 3)
    """

    log_z: float
    log_z_error: float
    bootstrap_error: float
    ladder_error: float
    windows: tuple[WindowReport, ...]
    overlap: np.ndarray
    converged: bool
    reasons: tuple[str, ...]
    positions: Tensor | None


def window_reports(
    chains: ReplicaExchange,
    found: Reweighted,
    equilibrium: Equilibrium,
    overlap: np.ndarray,
    ideal: float,
) -> tuple[WindowReport, ...]:
    """One report for each window; `overlap` (K - 1,) with the next one, `ideal` is the ideal gas's 3N ln L."""
    acceptance, swapped = chains.acceptance, chains.swap_acceptance
    reports = []
    for k, point in enumerate(chains.points):
        is_last = k == len(chains.points) - 1
        reports.append(
            WindowReport(
                point=float(point),
                log_z=ideal + float(found.log_z[k]),
                num_samples=len(equilibrium.steps[k]) * chains.positions.shape[1],
                inefficiency=float(equilibrium.inefficiency[k]),
                r_hat=float(equilibrium.r_hat[k]),
                acceptance=float(acceptance[k]),
                width=float(chains.log_width[k].exp()),
                overlap_with_next=None if is_last else float(overlap[k]),
                swaps_with_next=None if is_last else float(swapped[k]),
            )
        )
    return tuple(reports)


def reasons_against(
    windows: Sequence[WindowReport],
    error_per_atom: float,
    found: Reweighted,
    settings: LogZSettings,
) -> tuple[str, ...]:
    """Why the result is not to be trusted; empty where it is."""
    reasons = []
    overlap = min(window.overlap_with_next for window in windows if window.overlap_with_next is not None)
    if overlap < settings.min_overlap:
        reasons.append(f"neighbouring windows overlap by only {overlap:.3f} (required: {settings.min_overlap})")
    r_hat = max(window.r_hat for window in windows)
    if not r_hat <= LARGEST_R_HAT:
        reasons.append(f"R-hat = {r_hat:.3f} exceeds {LARGEST_R_HAT}: the chains disagree; raise log_z.num_sweeps")
    if not math.isfinite(found.asymptotic_error):
        reasons.append("MBAR's equations are singular: the windows fall apart into groups")
    fewest = min(window.num_samples for window in windows)
    if fewest < _LEAST_SAMPLES:
        reasons.append(f"a window has only {fewest} independent samples (required: {_LEAST_SAMPLES})")
    if not error_per_atom <= settings.target_error_per_atom:
        target = settings.target_error_per_atom
        reasons.append(f"error {error_per_atom:.4f} kT per atom exceeds the target {target}; raise log_z.max_sweeps")
    return tuple(reasons)
