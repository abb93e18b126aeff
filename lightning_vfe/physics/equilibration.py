"""Chains that are not equilibrated yet: the part of a series at its start, and terms that drift."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import t

from lightning_vfe.physics.series import Series, checked_series, checked_weights, is_constant
from lightning_vfe.physics.statistics import chain_error, load_pymbar

MOST_BLOCKS = 64
"""Blocks of steps at most: what is left out are whole blocks."""
MIN_STEPS = 16
"""Of fewer steps a start cannot be told; a drift can, from several chains."""
MIN_HALVES = 4
"""Steps at least for a comparison of two halves."""
START_CHANCE = 0.01
"""Of an equilibrated series: probability that a start of given length counts as different."""
DRIFT_CHANCE = 0.001
"""Probability that an equilibrated series is said to drift, and that a further block goes."""


def block_length(num_steps: int) -> int:
    """Steps in a block: the smallest power of two that makes at most MOST_BLOCKS blocks of a series."""
    return int(2 ** max(0, math.ceil(math.log2(max(1, num_steps) / MOST_BLOCKS))))


def equilibration_steps(
    series: Series,
    strata: Sequence[int] | Series | None = None,
    weights: Sequence[float] | Series | None = None,
    num_terms: int = 1,
) -> int:
    """Number of steps at the start of a series that are not equilibrated.

    1. The mean over the chains at each step has its noise lowered by their number, so that a common drift stands out.
       t_0 is the start that leaves the most effective samples, (steps - t_0) / g(t_0).
    2. On noise alone this t_0 is a random one. It counts only where the chains' means over the steps before t_0 differ
       from those after it. The chains are independent, so that the scatter of these differences gives their error
       without a model of correlations in time. Where every chain is a stratum of its own, the statistical inefficiency
       gives it.
    3. The first block of the rest must not differ in the same way from the steps after it, or it goes, too.
    4. The two halves of the rest must not differ in the same way, or the chains drift still. Of fewer than MIN_STEPS
       steps only this is done.

    Args:
        series: real samples.  # (steps, chains)
        strata: label of each chain, as of `statistics.estimate`.  # (chains,)
        weights: what each chain counts in the mean.  # (chains,)
        num_terms: series that are tested beside each other; each test has a share of the chances.

    Returns:
        0 where all steps are equilibrated, and for fewer than MIN_HALVES steps; a multiple of `block_length`. The
        number of all steps where the chains drift to the end.

    Raises:
        ValueError: as `statistics.estimate`.

    Source: Chodera, J. Chem. Theory Comput. 12, 1799 (2016), for 1.
    """
    values, labels = checked_series(series, strata)
    omega = checked_weights(weights, values.shape[1])
    omega /= omega.sum()
    mean_series, steps = values @ omega, len(values)
    if steps < MIN_HALVES or is_constant(values) or is_constant(mean_series):
        return 0
    if steps < MIN_STEPS:
        return steps if _differs(values, steps // 2, labels, omega, DRIFT_CHANCE / num_terms) else 0
    block = block_length(steps)
    start = int(load_pymbar().timeseries.detect_equilibration(mean_series, nskip=block)[0])
    if not _differs(values, start, labels, omega, START_CHANCE / num_terms):
        start = 0
    while start <= steps // 2 and _differs(values[start:], block, labels, omega, DRIFT_CHANCE / num_terms):
        start += block
    rest = values[start:]
    drifts = len(rest) >= MIN_STEPS and _differs(rest, len(rest) // 2, labels, omega, DRIFT_CHANCE / num_terms)
    return steps if drifts else start


def drifting_terms(
    terms: Mapping[str, Series],
    strata: Sequence[int] | Series | None = None,
    weights: Sequence[float] | Series | None = None,
) -> list[str]:
    """Names of the terms whose means over the first and the second half of the steps differ.

    Each chain is compared with itself. The chains are independent, so that the scatter of the differences gives their
    error, however slow the chains are. Where every chain is a stratum of its own, 2 * MIN_STEPS steps are needed for a
    verdict. All terms together find a drift in equilibrated chains with a probability of at most START_CHANCE.

    Args:
        terms: real samples of each term, by its name; terms that are not finite are left out.  # (steps, chains) each
        strata: label of each chain, as of `statistics.estimate`.  # (chains,)
        weights: what each chain counts in the mean.  # (chains,)

    Returns:
        No name for fewer than MIN_HALVES steps.
    """
    moving = {}
    for name, series in terms.items():
        array = np.asarray(series, dtype=np.float64)
        if len(array) >= MIN_HALVES and np.isfinite(array).all() and not is_constant(array):
            moving[name], labels = checked_series(array, strata)
    if not moving:
        return []
    omega = checked_weights(weights, len(labels))
    omega /= omega.sum()
    chance = START_CHANCE / len(moving)
    return [name for name, values in moving.items() if _differs(values, len(values) // 2, labels, omega, chance)]


def _differs(values: np.ndarray, border: int, labels: np.ndarray, omega: np.ndarray, chance: float) -> bool:
    """Whether the means before and after a border differ by more than they do with this probability."""
    if not 0 < border < len(values):
        return False
    difference = values[:border].mean(axis=0) - values[border:].mean(axis=0)  # (chains,)
    error = chain_error(difference[None], labels, omega)
    if error is not None:
        known = len(omega) - labels.max() - 1.0
    else:
        rest = values[border:] @ omega
        if len(rest) < MIN_STEPS or is_constant(rest):
            return False
        inefficiency = load_pymbar().timeseries.statistical_inefficiency(rest)
        error = math.sqrt(inefficiency * rest.var(ddof=1) * (1 / border + 1 / len(rest)))
        known = max(1.0, len(rest) / inefficiency - 1.0)
    # Student's t: the error itself is known from this many deviations only
    return bool(abs(difference @ omega) > t.isf(chance / 2, known) * error)
