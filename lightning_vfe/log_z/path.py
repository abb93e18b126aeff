"""The path from the ideal gas to a potential, E_0 = 0 -> E_1 -> ... -> E_S, and the windows along it.

A point s in [0, S] of the path has the energy (1 - t) E_j + t E_{j+1} with j = floor(s), t = s - j. So every window is
a vector of coefficients of E_1, ..., E_S, and the energies E_1, ..., E_S of a sample give its weight in all windows.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

# The first, coarse ladder in the first stage: its windows crowd towards the ideal gas, where dE/dt is widest, since
# nothing keeps its particles apart. From one potential to the next a few windows do.
_FROM_IDEAL_GAS = (np.arange(8) / 8) ** 2
_BETWEEN_POTENTIALS = np.arange(4) / 4


def coefficients(points: np.ndarray) -> Tensor:
    """Coefficients of E_1, ..., E_S at points s of the path: c_m = max(0, 1 - |s - m|), in float64.

    Args:
        points: increasing, the first 0, the last the whole number S.  # (K,)

    Returns:
        Without units.  # (K, S)
    """
    stages = np.arange(1, round(points[-1]) + 1)
    return torch.from_numpy(np.maximum(0.0, 1.0 - np.abs(points[:, None] - stages)))


def coarse_points(num_stages: int) -> np.ndarray:
    """A first ladder for the pilot, points (K,) in [0, S]."""
    stages = [_FROM_IDEAL_GAS, *(stage + _BETWEEN_POTENTIALS for stage in range(1, num_stages))]
    return np.append(np.concatenate(stages), float(num_stages))


def interval_lengths(points: np.ndarray, reduced_energies: np.ndarray) -> np.ndarray:
    """Thermodynamic length of each interval between neighbouring windows, by the trapezoidal rule in t,

        l = int sigma(t) dt,    sigma(t)^2 = variance of (E_{j+1} - E_j)/kT at t.

    Two windows at the distance l are, to leading order, Gaussians in the energy difference that are l standard
    deviations apart; the error of ln Z from n independent samples is at least (sum of l) / sqrt(n). The width is half
    of that of the central 68 %: it chooses windows also where close pairs of an ideal gas make the variance infinite.

    Args:
        points: the ladder.  # (K,)
        reduced_energies: E_1/kT, ..., E_S/kT of samples of each window.  # (samples, K, S)

    Returns:
        Without units.  # (K - 1,)

    Source: Gelman and Meng, Stat. Sci. 13, 163 (1998); Crooks, Phys. Rev. Lett. 99, 100602 (2007).
    """
    stage = np.floor(points[:-1]).astype(int)  # j of each interval
    padded = np.concatenate([np.zeros_like(reduced_energies[..., :1]), reduced_energies], axis=-1)
    interval = np.arange(len(stage))
    spread = []
    for window in (interval, interval + 1):
        slope = padded[:, window, stage + 1] - padded[:, window, stage]  # (samples, K - 1)
        low, high = np.quantile(slope, (0.1587, 0.8413), axis=0)
        spread.append(0.5 * (high - low))
    lengths: np.ndarray = np.diff(points) * 0.5 * (spread[0] + spread[1])
    return lengths


def spaced_points(points: np.ndarray, lengths: np.ndarray, spacing: float, most: int) -> np.ndarray:
    """A new ladder with equal thermodynamic lengths of at most `spacing` in each stage; ends of stages stay windows.

    Args:
        points: the old ladder.  # (K,)
        lengths: of its intervals, from interval_lengths.  # (K - 1,)
        spacing: target length of an interval.
        most: greatest number of intervals in a stage.
    """
    stages = []
    for stage in range(round(points[-1])):
        inside = (points >= stage) & (points <= stage + 1)
        own = points[inside]
        # A little of the parameter itself keeps the map monotonic where the energy does not fluctuate at all.
        steps = lengths[inside[:-1] & inside[1:]] + 1e-6 * np.diff(own)
        along = np.append(0.0, np.cumsum(steps))
        count = min(most, max(1, math.ceil(along[-1] / spacing - 1e-3)))
        stages.append(np.interp(np.linspace(0.0, along[-1], count + 1)[:-1], along, own))
    return np.append(np.concatenate(stages), points[-1])


def with_more_points(points: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """The ladder with further windows, evenly spaced inside its intervals.

    Args:
        points: the ladder.  # (K,)
        extra: number of windows to add in each interval.  # (K - 1,)
    """
    pieces = [np.linspace(points[i], points[i + 1], count + 2)[:-1] for i, count in enumerate(extra)]
    return np.append(np.concatenate(pieces), points[-1])
