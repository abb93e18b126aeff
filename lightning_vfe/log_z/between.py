"""Potentials of a path that have too little in common, so that others are put between them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit
from torch import Tensor

from lightning_vfe.log_z.replica_exchange import Energy

TargetPath = tuple[Sequence[Energy], Tensor, Sequence[int]]
"""Energies E_1, ..., E_M, the path's potentials as sums of them (S, M), and the numbers of the targets among these."""
_FARTHEST = 1e6
"""Energy difference in kT beyond which two windows have nothing in common."""
Between = Callable[[Sequence[int], Sequence[float]], TargetPath]
"""The path with further targets, each between the k-th target and the next one: takes the numbers k and overlaps."""


def overlap_of_pair(low: np.ndarray, high: np.ndarray) -> float:
    r"""Overlap int p_1 p_2 / (p_1 + p_2) dz of two Boltzmann distributions, from samples of both.

    With D = (E_2 - E_1)/kT and D_0 = -ln(Z_2/Z_1), p_2 / (p_1 + p_2) = 1 / (1 + exp(D - D_0)), so that the overlap is
    <1 / (1 + exp(D - D_0))>_1 = <1 / (1 + exp(D_0 - D))>_2. The second equation gives D_0. It is 1/2 for two equal
    distributions, 0.40 for Gaussians that are one standard deviation apart, 0.22 at 2, and 0.034 at 4. Other windows
    do not enter: a window between the two always raises it, whereas entries of the overlap matrix fall where windows
    are dense.

    Args:
        low: D of samples of p_1.  # (n,)
        high: D of samples of p_2.  # (m,)

    Source: Bennett, J. Comput. Phys. 22, 245 (1976).
    """
    low, high = (np.clip(each, -_FARTHEST, _FARTHEST) for each in (low, high))

    def difference(shift: float) -> float:
        return float(expit(shift - low).mean() - expit(high - shift).mean())

    ends = [float(end) for end in (min(low.min(), high.min()) - 1.0, max(low.max(), high.max()) + 1.0)]
    shift = brentq(difference, *ends) if difference(ends[0]) * difference(ends[1]) < 0 else float(np.mean(ends))
    return float(expit(shift - low).mean())


def neighbour_overlaps(samples: np.ndarray, coefficients: np.ndarray, rows: Sequence[int]) -> np.ndarray:
    """Overlap of each of some windows with the next one of them, by `overlap_of_pair`.

    Args:
        samples: E_m/kT of all windows.  # (steps, K, C, S)
        coefficients: of E_m in each window.  # (K, S)
        rows: numbers of the windows.  # (T,)

    Returns:
        # (T - 1,)
    """
    found = []
    for one, two in itertools.pairwise(rows):
        difference = coefficients[two] - coefficients[one]
        found.append(overlap_of_pair(*((samples[:, row] @ difference).ravel() for row in (one, two))))
    return np.array(found)
