"""Which samples of each window count: equilibration, and steps between independent samples."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lightning_vfe.physics.statistics import integrated_autocorrelation_time, load_pymbar, split_r_hat


@dataclass(frozen=True)
class Equilibrium:
    """What is kept of each window's samples; K arrays.

    Attributes:
        start: first step after the equilibration.
        inefficiency: steps from one independent sample to the next, at least 1.
        r_hat: split R-hat over the chains after `start`, the worst observable.
        steps: numbers of the kept steps of each window.  # K of (samples_k,)
    """

    start: np.ndarray
    inefficiency: np.ndarray
    r_hat: np.ndarray
    steps: list[np.ndarray]


def find_equilibrium(reduced: np.ndarray, points: np.ndarray) -> Equilibrium:
    """Where each window is equilibrated, and how far apart its independent samples are.

    The observables are the energy differences E_{j+1} - E_j of the stages that a window borders on: they are what ln Z
    is made of. Equilibration is detected on their means over the chains, where a common drift stands out most; the
    statistical inefficiency is the larger of pymbar's, averaged over chains, and that of all chains together, which
    grows when they disagree.

    Args:
        reduced: E_m/kT.  # (steps, K, C, S)
        points: windows along the path.  # (K,)

    Source: Chodera, J. Chem. Theory Comput. 12, 1799 (2016).
    """
    timeseries = load_pymbar().timeseries
    num_steps, num_windows, _, num_stages = reduced.shape
    padded = np.concatenate([np.zeros_like(reduced[..., :1]), reduced], axis=-1)
    start, inefficiency = np.zeros(num_windows, dtype=int), np.ones(num_windows)
    r_hat, steps = np.ones(num_windows), []
    for window, point in enumerate(points):
        stages = {min(max(math.ceil(point) - 1, 0), num_stages - 1), min(math.floor(point), num_stages - 1)}
        series = [padded[:, window, :, stage + 1] - padded[:, window, :, stage] for stage in sorted(stages)]
        series = [each for each in series if not _is_constant(each)]
        for each in series:
            found = timeseries.detect_equilibration(each.mean(axis=1), nskip=max(1, num_steps // 50))
            start[window] = max(start[window], min(int(found[0]), num_steps // 2))
        for each in series:
            kept = each[start[window] :]
            chains = [chain for chain in kept.T if not _is_constant(chain)]
            g = timeseries.statistical_inefficiency_multiple(chains) if chains else float(len(kept))
            g = max(g, integrated_autocorrelation_time(kept))
            inefficiency[window] = max(inefficiency[window], min(g, float(len(kept))))
            r_hat[window] = max(r_hat[window], split_r_hat(kept))
        length = num_steps - start[window]
        picked = timeseries.subsample_correlated_data(np.zeros(length), g=inefficiency[window])
        steps.append(start[window] + np.asarray(picked, dtype=int))
    return Equilibrium(start, inefficiency, r_hat, steps)


def _is_constant(values: np.ndarray) -> bool:
    """True when the values differ by rounding only."""
    return bool(np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())))
