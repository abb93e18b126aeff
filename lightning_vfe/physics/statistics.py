"""Means of Markov chains with honest errors.

Series have the shape (steps, chains). The chains must be independent: proton walkers (average over a walker's electrons
first, they share its protons), or electron walkers when the protons are fixed. F, S and P are linear combinations of
terms of one walker: build the combination sample by sample and estimate that, so that the correlations of the terms
are counted.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lightning_vfe.physics.series import Series, checked_series, checked_weights, is_constant, stratum_means

MIN_STEPS_FOR_BLOCKING = 4


class Estimate(NamedTuple):
    """A mean with its error.

    Attributes:
        value: mean over steps, and weighted mean over chains.
        error: standard error of the value; nan where there are too few chains and steps to know it.
        autocorrelation_time: tau = 1 + 2 sum_t rho_t in steps; 1 for independent samples.
        effective_sample_size: steps * chains / tau; with weights, Kish's (sum omega)^2 / sum omega^2 takes the place of
            the number of chains.
        r_hat: split R-hat; 1 when all chains have seen the same distribution, above about 1.05 they have not converged.
    """

    value: float
    error: float
    autocorrelation_time: float
    effective_sample_size: float
    r_hat: float


def estimate(
    series: Series, strata: Sequence[int] | Series | None = None, weights: Sequence[float] | Series | None = None
) -> Estimate:
    """Mean sum_c omega_c m_c of the chains' time means m_c, sum_c omega_c = 1, with the larger of two errors:

    (a) across chains: with n chains in each stratum t, their plain mean M_t and their variance
            s_t^2 = sum_{c in t} (m_c - M_t)^2 / (n - 1),        error^2 = sum_t s_t^2 sum_{c in t} omega_c^2.
        Unbiased for any weights, also where the strata have different means and variances. Deviations count within
        strata only: twists are a fixed grid, not random, so their spread is no error. Without strata all chains are one
        stratum. With equal weights error^2 = sum_c (m_c - M_{stratum of c})^2 / (C (C - S)), C chains in S strata.
    (b) across time: y_t = sum_c omega_c x_tc, the weighted mean over chains at step t, has
        error^2 = g var(y) / steps with pymbar's statistical inefficiency g.

    (a) needs two chains in a stratum and no time correlation model; (b) works for one chain per twist. Each can come
    out low by chance or where chains or steps are few; the larger one errs on the safe side.

    The weights enter the value, the two errors and the effective sample size. tau and R-hat describe the chains, not
    the mean, and leave the weights out: a chain that has not converged shows whatever it counts.

    Args:
        series: real samples.  # (steps, chains)
        strata: label of each chain, for example the number of its twist.  # (chains,)
        weights: what each chain counts in the mean, fixed beforehand, up to a common factor: for weighted twists the
            weight of its twist over the number of the twist's chains. None is equal weights.  # (chains,)

    Returns:
        Value, error and the diagnostics of convergence.

    Raises:
        ValueError: the series is empty, not two-dimensional, complex or not finite; the labels do not fit, or the
            strata have different numbers of chains; the weights do not fit, are negative, not finite or all zero.

    Source: Cochran, Sampling Techniques (1977), ch. 5; Kish, Survey Sampling (1965), ch. 11; Chodera et al., J. Chem.
    Theory Comput. 3, 26 (2007).
    """
    values, labels = checked_series(series, strata)
    relative = checked_weights(weights, values.shape[1])
    omega = relative / relative.sum()
    samples = values.shape[0] * float(relative.sum() ** 2 / (relative**2).sum())
    if is_constant(values):
        # One sample is constant too, but says nothing about its error.
        error = 0.0 if values.size > 1 else math.nan
        return Estimate(float(values[0, 0]), error, 1.0, samples, 1.0)
    mean_series = values @ omega
    errors = [chain_error(values, labels, omega), _time_error(mean_series)]
    known = [error for error in errors if error is not None]
    tau = integrated_autocorrelation_time(values, labels)
    return Estimate(
        value=float(mean_series.mean()),
        error=max(known) if known else math.nan,
        autocorrelation_time=tau,
        effective_sample_size=samples / tau,
        r_hat=split_r_hat(values, labels),
    )


def largest_share(series: Series, strata: Sequence[int] | Series | None = None) -> float:
    """max d^2 / sum d^2 over all samples, d = x - mean of its stratum: how much of the variance one sample makes.

    Of n normal samples it is about 2 ln(n) / n. If it is large, the variance is finite by luck, and no error of the
    mean can be trusted. 0 when all samples are equal.

    Args:
        series: real samples.  # (steps, chains)
        strata: label of each chain, for example the number of its twist.  # (chains,)
    """
    values, labels = checked_series(series, strata)
    squares = np.square(values - stratum_means(values, labels))
    return float(squares.max() / squares.sum()) if not is_constant(values) else 0.0


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
    values, labels = checked_series(series, strata)
    length = values.shape[0] // 2
    if is_constant(values):
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
    values, labels = checked_series(series, strata)
    steps = values.shape[0]
    if steps < MIN_STEPS_FOR_BLOCKING or is_constant(values):
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
    by_stratum = _variances_of_chain_means(values, labels)
    return within, (steps - 1) / steps * within + (0.0 if by_stratum is None else float(by_stratum.mean()))


def _variances_of_chain_means(values: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
    """Variance of the chains' time means in each stratum  # (S,); None when every chain is a stratum of its own."""
    counts = np.bincount(labels)
    if counts[0] == 1:
        return None
    deviations = values.mean(axis=0) - stratum_means(values, labels)
    return np.bincount(labels, weights=deviations**2) / (counts - 1)


def chain_error(values: np.ndarray, labels: np.ndarray, omega: np.ndarray) -> float | None:
    """Error (a) of `estimate`; None when every chain is a stratum of its own.

    Args:
        values: float64.  # (steps, chains)
        labels: numbers of the strata, from 0.  # (chains,)
        omega: weights that add up to one.  # (chains,)
    """
    variances = _variances_of_chain_means(values, labels)
    return None if variances is None else math.sqrt((omega**2 * variances[labels]).sum())


def _time_error(mean_series: np.ndarray) -> float | None:
    """Error (b) of `estimate`, from the mean over chains at every step."""
    steps = mean_series.size
    if steps < MIN_STEPS_FOR_BLOCKING:
        return None
    if is_constant(mean_series):
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
