"""Series of samples with their strata and weights, checked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

Series = np.ndarray | Tensor


def is_constant(values: np.ndarray) -> bool:
    """True when the values differ by rounding only."""
    return bool(np.ptp(values) <= 8 * np.finfo(np.float64).eps * np.abs(values).max())


def checked_series(series: Series, strata: Sequence[int] | Series | None) -> tuple[np.ndarray, np.ndarray]:
    """The series in float64 and the strata numbered from 0; raises ValueError in one line."""
    array = series.detach().cpu().numpy() if isinstance(series, Tensor) else np.asarray(series)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"series has shape {array.shape}; it must be (steps, chains), both at least 1")
    if np.iscomplexobj(array):
        raise ValueError("series is complex; estimate its real part")
    values = array.astype(np.float64)
    bad = np.argwhere(~np.isfinite(values))
    if bad.size:
        step, chain = bad[0]
        raise ValueError(
            f"series has {len(bad)} non-finite values of {values.size}, the first at step {step} of chain {chain}; "
            "a mean over the others would be biased, find the cause"
        )
    if strata is None:
        return values, np.zeros(values.shape[1], dtype=np.int64)
    given = strata.detach().cpu().numpy() if isinstance(strata, Tensor) else np.asarray(strata)
    if given.shape != (values.shape[1],):
        raise ValueError(f"strata have shape {given.shape}; give one label for each of the {values.shape[1]} chains")
    _, labels, counts = np.unique(given, return_inverse=True, return_counts=True)
    if counts.min() != counts.max():
        raise ValueError(f"strata have {counts.min()} to {counts.max()} chains; give all twists equally many walkers")
    return values, labels


def stratum_means(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean over steps and chains of the stratum of each chain.  # (steps, chains) -> (chains,)

    Args:
        values: # (steps, chains)
        labels: number of the stratum of each chain, from 0.  # (chains,)
    """
    means: np.ndarray = (np.bincount(labels, values.mean(axis=0)) / np.bincount(labels))[labels]
    return means


def checked_weights(weights: Sequence[float] | Series | None, chains: int) -> np.ndarray:
    """The weights in float64, the largest one; raises ValueError in one line."""
    if weights is None:
        return np.ones(chains)
    given = weights.detach().cpu().numpy() if isinstance(weights, Tensor) else np.asarray(weights)
    if given.shape != (chains,):
        raise ValueError(f"weights have shape {given.shape}; give one number for each of the {chains} chains")
    if not np.issubdtype(given.dtype, np.number) or np.iscomplexobj(given):
        raise ValueError(f"weights have the dtype {given.dtype}; give real numbers")
    array = given.astype(np.float64)
    bad = np.flatnonzero(~(np.isfinite(array) & (array >= 0)))
    if bad.size:
        raise ValueError(f"weights are {array[bad[0]]:g} for chain {bad[0]}; all must be finite and not negative")
    if not array.any():
        raise ValueError("weights are zero for all chains; at least one must be positive")
    scaled: np.ndarray = array / array.max()
    return scaled
