"""Means of Markov chains with honest errors.

Series have the shape (steps, chains). The chains must be independent: proton walkers (average over a walker's electrons
first, they share its protons), or electron walkers when the protons are fixed. F, S and P are linear combinations of
terms of one walker: build the combination sample by sample and estimate that, so that the correlations of the terms
are counted. For nonlinear functions of several means there is `propagate`.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

Series = np.ndarray | Tensor

MIN_STEPS_FOR_BLOCKING = 4


class Estimate(NamedTuple):
    """A mean with its error.

    Attributes:
        value: mean over steps and chains.
        error: standard error of the value; nan where there are too few chains and steps to know it.
        autocorrelation_time: tau = 1 + 2 sum_t rho_t in steps; 1 for independent samples.
        effective_sample_size: steps * chains / tau.
        r_hat: split R-hat; 1 when all chains have seen the same law, above about 1.05 they have not converged.
    """

    value: float
    error: float
    autocorrelation_time: float
    effective_sample_size: float
    r_hat: float


def estimate(series: Series, strata: Sequence[int] | Series | None = None) -> Estimate:
    """Mean of a series with the larger of two errors:

    (a) across chains: chain c has the time mean m_c, and
            error^2 = 1/C * sum_c (m_c - <m>_{stratum of c})^2 / (C - S).
        Within strata only: twists are a fixed grid, not random, so their spread is no error. With equally many chains
        in each of the S strata this is the variance of a stratified sample. S = 1 without strata.
    (b) across time: y_t, the mean over all chains at step t, has error^2 = g var(y) / steps with pymbar's statistical
        inefficiency g.

    (a) needs a stratum with two chains and no time correlation model; (b) works for one chain per twist. Each can come
    out low by chance or where chains or steps are few; the larger one errs on the safe side.

    Args:
        series: real samples.  # (steps, chains)
        strata: label of each chain, for example the number of its twist.  # (chains,)

    Returns:
        Value, error and the diagnostics of convergence.

    Raises:
        ValueError: the series is empty, not two-dimensional, complex or not finite; the labels do not fit, or the
            strata have different numbers of chains.

    Source: Cochran, Sampling Techniques (1977), ch. 5; Chodera et al., J. Chem. Theory Comput. 3, 26 (2007).
    """
    values, labels = _checked(series, strata)
    if _is_constant(values):
        # One sample is constant too, but says nothing about its error.
        error = 0.0 if values.size > 1 else math.nan
        return Estimate(float(values[0, 0]), error, 1.0, float(values.size), 1.0)
    errors = [_chain_error(values, labels), _time_error(values.mean(axis=1))]
    known = [error for error in errors if error is not None]
    tau = integrated_autocorrelation_time(values, labels)
    return Estimate(
        value=float(values.mean()),
        error=max(known) if known else math.nan,
        autocorrelation_time=tau,
        effective_sample_size=values.size / tau,
        r_hat=split_r_hat(values, labels),
    )


def propagate(
    function: Callable[..., Tensor], series: Sequence[Series], strata: Sequence[int] | Series | None = None
) -> Estimate:
    """Estimate of a smooth function f of several means, such as a ratio, whose series are correlated.

    To first order f(m) changes by sum_k df/dm_k (y_k - <y_k>) with the samples y_k, so the error of f is that of the
    series f(<y>) + sum_k df/dm_k (y_k - <y_k>), which keeps all correlations. The bias of order variance/samples is
    left in.

    Args:
        function: K 0-dim float64 tensors -> 0-dim tensor, differentiable by autograd.
        series: K series of the same chains and steps.  # K of (steps, chains)
        strata: label of each chain, as in `estimate`.  # (chains,)

    Returns:
        Estimate of f(<y_1>, ..., <y_K>).

    Raises:
        ValueError: as `estimate`, or the series have different shapes.
    """
    arrays = [_checked(one, strata)[0] for one in series]
    shapes = {array.shape for array in arrays}
    if len(shapes) != 1:
        raise ValueError(f"series have shapes {sorted(shapes)}; all must come from the same steps and chains")
    means = [torch.tensor(array.mean(), dtype=torch.float64, requires_grad=True) for array in arrays]
    with torch.enable_grad():
        value = function(*means)
        slopes = torch.autograd.grad(value, means, allow_unused=True)
    linear = np.full(arrays[0].shape, float(value.detach()))
    for array, slope in zip(arrays, slopes, strict=True):
        if slope is not None:
            linear += float(slope) * (array - array.mean())
    return estimate(linear, strata)


def split_r_hat(series: Series, strata: Sequence[int] | Series | None = None) -> float:
    """Split R-hat: each chain is cut into halves of n steps, giving M half chains in S strata; with

        within = mean of the half chains' variances,
        between = n * sum (mean of half chain - mean of its stratum)^2 / (M - S),
        R-hat = sqrt[((n - 1)/n within + between/n) / within].

    It also sees a common drift. nan with fewer than four steps, 1 when all samples are equal, inf when chains are stuck
    at different values.

    Args:
        series: real samples.  # (steps, chains)
        strata: label of each chain; differences between strata are expected and do not count.  # (chains,)

    Source: Gelman et al., Bayesian Data Analysis (2013), sec. 11.4; Vehtari et al., Bayesian Anal. 16, 667 (2021).
    """
    values, labels = _checked(series, strata)
    length = values.shape[0] // 2
    if _is_constant(values):
        return 1.0
    if length < 2:
        return math.nan
    halves = np.concatenate([values[:length], values[-length:]], axis=1)
    within, total = _variances(halves, np.concatenate([labels, labels]))
    return math.sqrt(total / within) if within > 0 else math.inf


def integrated_autocorrelation_time(series: Series, strata: Sequence[int] | Series | None = None) -> float:
    """tau = 1 + 2 sum_t rho_t in steps, from all chains together, so that chains which disagree lengthen it:

        rho_t = 1 - (within - <autocovariance at lag t>) / total,

    with the within-chain variance and the total one, (n-1)/n within + between/n. The sum is cut by Geyer's initial
    monotone sequence. The result lies between 1 and the number of steps.

    Args:
        series: real samples.  # (steps, chains)
        strata: label of each chain; differences between strata are not counted.  # (chains,)

    Source: Geyer, Stat. Sci. 7, 473 (1992); Vehtari et al., Bayesian Anal. 16, 667 (2021), eq. 10 to 13.
    """
    values, labels = _checked(series, strata)
    steps = values.shape[0]
    if steps < MIN_STEPS_FOR_BLOCKING or _is_constant(values):
        return 1.0
    within, total = _variances(values, labels)
    if within <= 0:
        return float(steps)
    centred = values - values.mean(axis=0)
    spectrum = np.abs(np.fft.rfft(centred, n=2 * steps, axis=0)) ** 2
    covariance = np.fft.irfft(spectrum.mean(axis=1), n=2 * steps)[:steps] / steps
    rho = 1.0 - (within - covariance) / total
    rho[0] = 1.0
    pairs = rho[: steps - steps % 2].reshape(-1, 2).sum(axis=1)
    negative = np.flatnonzero(pairs < 0)
    pairs = np.minimum.accumulate(pairs[: negative[0]] if negative.size else pairs)
    return float(np.clip(2.0 * pairs.sum() - 1.0, 1.0, steps))


def _variances(values: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Variance within chains, and the total one, (n-1)/n within + between/n, of chains of n steps."""
    steps = values.shape[0]
    within = float(values.var(axis=0, ddof=1).mean())
    between_means = _variance_of_chain_means(values, labels)
    return within, (steps - 1) / steps * within + (between_means or 0.0)


def _variance_of_chain_means(values: np.ndarray, labels: np.ndarray) -> float | None:
    """Variance of the chains' time means about their stratum's mean; None when every chain is a stratum of its own."""
    means = values.mean(axis=0)
    num_strata = int(labels.max()) + 1
    freedom = means.size - num_strata
    if freedom == 0:
        return None
    centres = np.bincount(labels, weights=means) / np.bincount(labels)
    return float(((means - centres[labels]) ** 2).sum() / freedom)


def _chain_error(values: np.ndarray, labels: np.ndarray) -> float | None:
    """Error (a) of `estimate`."""
    variance = _variance_of_chain_means(values, labels)
    return None if variance is None else math.sqrt(variance / values.shape[1])


def _time_error(mean_series: np.ndarray) -> float | None:
    """Error (b) of `estimate`, from the mean over chains at every step."""
    steps = mean_series.size
    if steps < MIN_STEPS_FOR_BLOCKING:
        return None
    if _is_constant(mean_series):
        return 0.0
    return math.sqrt(load_pymbar().timeseries.statistical_inefficiency(mean_series) * mean_series.var(ddof=1) / steps)


@functools.cache
def load_pymbar() -> Any:
    """The module pymbar, imported when first needed (about a second)."""
    # On import pymbar prints general advice and a hint at JAX, at warning level: noise in a run's log.
    logger = logging.getLogger("pymbar")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        import pymbar
    finally:
        logger.setLevel(level)
    return pymbar


def _is_constant(values: np.ndarray) -> bool:
    """True when the values differ by rounding only."""
    return bool(np.ptp(values) <= 8 * np.finfo(np.float64).eps * np.abs(values).max())


def _checked(series: Series, strata: Sequence[int] | Series | None) -> tuple[np.ndarray, np.ndarray]:
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
