"""From independent samples of all windows to ln Z: MBAR with its errors, overlap.

Series have the shape (steps, K windows, C chains); the chains of one index c form a ladder; ladders are independent.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightning_vfe.physics.statistics import load_pymbar

# Bootstraps cost time in proportion to the samples, and their error is known well enough from this many.
_MOST_RESAMPLED = 20_000
_SOLVERS = ({"method": "adaptive", "options": {"min_sc_iter": 0}}, {"method": "hybr", "continuation": True})


@dataclass(frozen=True)
class Reweighted:
    """Result of MBAR.

    Attributes:
        log_z: ln Z_k - ln Z_0 of every window.  # (K,)
        asymptotic_errors: of log_z with independent samples, to first order.  # (K,)
        ladder_changes: what each of the C ladders contributes to log_z, to first order; the sum is zero.  # (K, C)
        overlap: O_ij, the probability that a sample of window i belongs to window j by its weight.  # (K, K)
    """

    log_z: np.ndarray
    asymptotic_errors: np.ndarray
    ladder_changes: np.ndarray
    overlap: np.ndarray

    @property
    def asymptotic_error(self) -> float:
        """Of log_z[-1]."""
        return float(self.asymptotic_errors[-1])

    @property
    def ladder_errors(self) -> np.ndarray:
        """Of log_z from the spread over ladders  # (K,)."""
        num_ladders = self.ladder_changes.shape[1]
        errors: np.ndarray = np.sqrt(num_ladders / (num_ladders - 1) * (self.ladder_changes**2).sum(axis=1))
        return errors

    @property
    def ladder_error(self) -> float:
        """Of log_z[-1] from the spread over ladders."""
        return float(self.ladder_errors[-1])


def reweight(reduced: np.ndarray, coefficients: np.ndarray, steps: Sequence[np.ndarray]) -> Reweighted:
    """Multistate Bennett acceptance ratio of all windows.

    Args:
        reduced: E_m/kT.  # (steps, K, C, S)
        coefficients: of E_m in each window.  # (K, S)
        steps: which steps to use of each window.  # K of (samples_k,)

    Raises:
        FloatingPointError: MBAR's equations have no solution.

    Source: Shirts and Chodera, J. Chem. Phys. 129, 124105 (2008).
    """
    try:
        return _reweight(reduced, coefficients, steps)
    except np.linalg.LinAlgError as error:
        raise _singular(error) from error


def _reweight(reduced: np.ndarray, coefficients: np.ndarray, steps: Sequence[np.ndarray]) -> Reweighted:
    num_ladders = reduced.shape[2]
    counts = num_ladders * np.array([len(each) for each in steps])
    ladder = np.tile(np.arange(num_ladders), counts.sum() // num_ladders)  # (n,)
    mbar = _solve(reduced, coefficients, steps)
    weights = mbar.weights()  # (n, K)
    difference = mbar.compute_free_energy_differences()
    return Reweighted(
        log_z=-np.asarray(difference["Delta_f"][0]),
        asymptotic_errors=np.asarray(difference["dDelta_f"][0]),
        ladder_changes=_ladder_changes(weights, counts, ladder),
        overlap=weights.T @ weights * counts,
    )


def bootstrap_error(
    reduced: np.ndarray,
    coefficients: np.ndarray,
    steps: Sequence[np.ndarray],
    log_z: np.ndarray,
    num_bootstraps: int,
    seed: int,
) -> float:
    """Error of log_z[-1] by `bootstrap_covariance`."""
    found = bootstrap_covariance(reduced, coefficients, steps, log_z, num_bootstraps, seed)
    return math.sqrt(float(found[-1, -1]))


def bootstrap_covariance(
    reduced: np.ndarray,
    coefficients: np.ndarray,
    steps: Sequence[np.ndarray],
    log_z: np.ndarray,
    num_bootstraps: int,
    seed: int,
) -> np.ndarray:
    """Covariance (K, K) of log_z from resampling each window's independent samples and solving MBAR again.

    Of very many samples only a part is resampled, and the error scaled with the square root of the number.

    Args:
        reduced: E_m/kT.  # (steps, K, C, S)
        coefficients: of E_m in each window.  # (K, S)
        steps: independent steps of each window.  # K of (samples_k,)
        log_z: MBAR's solution, the start of every resampling's.  # (K,)
        num_bootstraps: number of resamplings.
        seed: of the resamplings.
    """
    total = sum(len(each) for each in steps)
    stride = -(-total * reduced.shape[2] // _MOST_RESAMPLED)
    part = [each[::stride] for each in steps]
    # pymbar 4.0 draws from NumPy's global generator: without rseed it seeds that at random, with it not at all.
    state = np.random.get_state()  # noqa: NPY002  (pymbar draws from it)
    np.random.seed(seed % 2**32)  # noqa: NPY002  (pymbar draws from it)
    try:
        mbar = _solve(reduced, coefficients, part, initial_f_k=-log_z, n_bootstraps=num_bootstraps, rseed=seed)
    except np.linalg.LinAlgError as error:
        raise _singular(error) from error
    finally:
        np.random.set_state(state)  # noqa: NPY002  (pymbar draws from it)
    resampled = mbar.f_k_boots - mbar.f_k_boots[:, :1]  # (resamplings, K)
    covariance: np.ndarray = np.atleast_2d(np.cov(resampled, rowvar=False)) * sum(len(each) for each in part) / total
    return covariance


def _solve(reduced: np.ndarray, coefficients: np.ndarray, steps: Sequence[np.ndarray], **options: Any) -> Any:
    """pymbar's MBAR of the given steps; samples are ordered by window, step, ladder."""
    own = [reduced[each, window] for window, each in enumerate(steps)]  # K of (samples_k, C, S)
    samples = np.concatenate([each.reshape(-1, each.shape[-1]) for each in own])  # (n, S)
    counts = np.array([each.shape[0] * each.shape[1] for each in own])
    pymbar, logger = load_pymbar(), logging.getLogger("pymbar")
    # From f = 0 the solvers can fail, or need very long, where neighbouring windows differ by hundreds of kT.
    start = options if "initial_f_k" in options else options | {"initialize": "BAR"}
    level = logger.level
    # It reports each solver that it tries; the solution is checked below.
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # weights far from a window underflow to zero, as they should
            warnings.simplefilter("ignore", RuntimeWarning)
            mbar = pymbar.MBAR(coefficients @ samples.T, counts, solver_protocol=_SOLVERS, **start)
    finally:
        logger.setLevel(level)
    largest = np.abs(mbar.weights().sum(axis=0) - 1.0).max()
    if not largest < 1e-4:
        raise FloatingPointError(
            f"MBAR found no solution: the weights of a window add up to 1 within {largest:.1e} only; sample longer "
            "with log_z.num_sweeps, or place windows closer with log_z.spacing"
        )
    return mbar


def _singular(error: Exception) -> FloatingPointError:
    """What numpy's algebra cannot do, in words of ln Z."""
    return FloatingPointError(
        f"MBAR's equations are singular ({error}): the windows fall apart into groups; place them closer with "
        "log_z.spacing, or sample longer with log_z.num_sweeps"
    )


def _ladder_changes(weights: np.ndarray, counts: np.ndarray, ladder: np.ndarray) -> np.ndarray:
    r"""What each independent ladder contributes to ln Z_k - ln Z_0, to first order; their spread gives the error.

    MBAR's f solves sum_n W_nk = 1. A ladder c that is counted 1 + d_c times changes it by

        df = -M^+ sum_c d_c a_c,    a_ck = sum_{n in c} W_nk,    M = 1 - W^T W diag(counts),

    so that ln Z is a sum over ladders, whose variance is known from their spread.

    Args:
        weights: W.  # (n, K)
        counts: samples of each window, the same in each ladder.  # (K,)
        ladder: of each sample, two ladders at least.  # (n,)

    Returns:
        Changes of f_k - f_1.  # (K, C)
    """
    num_ladders = int(ladder.max()) + 1
    parts = np.stack([weights[ladder == c].sum(axis=0) for c in range(num_ladders)], axis=1)  # (K, C)
    matrix = np.eye(len(counts)) - weights.T @ weights * counts
    change = np.linalg.pinv(matrix, rcond=1e-10) @ (parts - parts.mean(axis=1, keepdims=True))
    relative: np.ndarray = change - change[0]
    return relative
