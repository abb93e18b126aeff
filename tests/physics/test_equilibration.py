"""What is left out at the start of a series, and errors that hold afterwards."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lightning_vfe.physics.equilibration import START_CHANCE, block_length, drifting_terms, equilibration_steps
from lightning_vfe.physics.statistics import estimate
from tests.physics.test_statistics import autoregressive

REPEATS = 200
SIGMA = {68.27: math.sqrt(0.6827 * 0.3173 / REPEATS), 95.45: math.sqrt(0.9545 * 0.0455 / REPEATS)}
"""Counting errors of the coverage."""


def kept(series: np.ndarray) -> np.ndarray:
    start = equilibration_steps(series)
    return series[min(start, len(series) // 2) :]


@pytest.mark.parametrize("phi", [0.0, 0.8], ids=["independent", "correlated"])
@pytest.mark.parametrize("chains", [1, 32])
def test_nothing_of_an_equilibrated_series_is_left_out_beyond_chance(phi: float, chains: int) -> None:
    """The first part goes with a probability of 1 %."""
    starts = [
        equilibration_steps(autoregressive(np.random.default_rng(seed), 200, chains, phi)) for seed in range(REPEATS)
    ]
    share = np.mean(np.array(starts) > 0)
    # a single chain with tau = 9 holds 22 independent samples: its error is known to a third only
    chance = 0.1 if chains == 1 and phi else 0.02
    assert share < chance + 3 * math.sqrt(chance / REPEATS)
    assert np.mean(np.array(starts) == 200) < 0.02


@pytest.mark.parametrize(("amplitude", "decay", "phi"), [(2.0, 8.0, 0.5), (10.0, 4.0, 0.0), (0.0, 1.0, 0.7)])
def test_errors_hold_after_a_start_that_decays(amplitude: float, decay: float, phi: float) -> None:
    """Without leaving anything out the first two would be off by many errors."""
    drift = amplitude * np.exp(-np.arange(300) / decay)[:, None]
    pulls, raw = [], []
    for seed in range(REPEATS):
        series = autoregressive(np.random.default_rng(seed), 300, 32, phi) + drift
        for results, part in ((pulls, kept(series)), (raw, series)):
            found = estimate(part)
            results.append(found.value / found.error)
    for limit, share in ((1.0, 68.27), (2.0, 95.45)):
        covered = np.mean(np.abs(pulls) < limit)
        # the larger of two errors covers a bit more
        assert share / 100 - 3 * SIGMA[share] < covered < share / 100 + 0.07 + 3 * SIGMA[share], covered
    if amplitude:
        assert np.mean(raw) > 0.8
        assert abs(np.mean(pulls)) < 3 / math.sqrt(REPEATS)


def test_the_start_of_chains_that_begin_far_off() -> None:
    series = autoregressive(np.random.default_rng(1), 400, 16, 0.5)
    series[:40] += 5.0
    assert 40 <= equilibration_steps(series) <= 56
    strata = np.arange(16) % 4
    assert 40 <= equilibration_steps(series + 3.0 * strata, strata) <= 56
    assert 40 <= equilibration_steps(series, np.arange(16)) <= 56, "a chain for each stratum"
    weights = np.where(np.arange(16) < 8, 1.0, 0.0)
    only = series.copy()
    only[:, :8] = autoregressive(np.random.default_rng(2), 400, 8, 0.5)
    assert equilibration_steps(only, None, weights) == 0, "chains of weight zero do not count"


def test_chains_that_drift_to_the_end_have_not_equilibrated() -> None:
    series = autoregressive(np.random.default_rng(3), 200, 16, 0.5) + np.linspace(0, 3, 200)[:, None]
    assert equilibration_steps(series) > 100
    slower = autoregressive(np.random.default_rng(3), 200, 16, 0.5) + np.linspace(0, 1.5, 200)[:, None]
    assert equilibration_steps(slower) > 100


def test_short_and_constant_series_lose_nothing() -> None:
    assert equilibration_steps(np.arange(15.0)[:, None]) == 0
    assert equilibration_steps(np.full((100, 4), 0.1)) == 0
    assert equilibration_steps(np.broadcast_to(np.arange(4.0), (100, 4))) == 0


def test_whole_blocks_are_left_out() -> None:
    assert [block_length(steps) for steps in (1, 64, 65, 128, 129, 1000)] == [1, 1, 2, 2, 4, 16]
    series = autoregressive(np.random.default_rng(4), 1000, 16, 0.0)
    series[:100] += 5.0
    assert equilibration_steps(series) in (112, 128, 144)


TERMS, SWEEPS, WALKERS = 8, 12, 32


def short_terms(seed: int, phi: float, tails: bool = False) -> dict[str, np.ndarray]:
    """The terms of a short measurement, some of them correlated, with a slow part that walkers keep."""
    rng = np.random.default_rng(seed)
    terms = [autoregressive(rng, SWEEPS, WALKERS, phi) for _ in range(TERMS - 2)]
    if tails:
        terms = [series + rng.standard_t(3, series.shape) for series in terms]
    kept = rng.normal(size=WALKERS)
    return {str(i): series for i, series in enumerate([*terms, terms[0] + terms[1], terms[2] + kept])}


@pytest.mark.parametrize(("phi", "tails"), [(0.0, False), (0.95, False), (0.5, True)], ids=["fast", "slow", "tails"])
def test_short_equilibrated_series_seldom_drift(phi: float, tails: bool) -> None:
    """All terms together give a false alarm with a probability of 1 %, however slow the walkers are."""
    repeats = 500
    alarms = [bool(drifting_terms(short_terms(seed, phi, tails))) for seed in range(repeats)]
    assert np.mean(alarms) < START_CHANCE + 3 * math.sqrt(START_CHANCE / repeats)
    strata = np.arange(WALKERS) % 4
    alarms = [bool(drifting_terms(short_terms(seed, phi, tails), strata)) for seed in range(200)]
    assert np.mean(alarms) < START_CHANCE + 3 * math.sqrt(START_CHANCE / 200)


def test_a_drift_of_short_series_is_found() -> None:
    """Walkers that begin two standard deviations off and come back with tau = 10 sweeps."""
    found = []
    for seed in range(50):
        terms = short_terms(seed, math.exp(-0.1))
        terms["3"] += 2.0 * np.exp(-0.1 * np.arange(SWEEPS))[:, None]
        found.append(drifting_terms(terms))
        assert equilibration_steps(terms["3"]) in (0, SWEEPS)
    assert np.mean(["3" in names for names in found]) > 0.95
    offset = short_terms(0, 0.5)
    offset["2"] += 5.0 * (np.arange(SWEEPS) < 3)[:, None]
    assert equilibration_steps(offset["2"]) == SWEEPS, "too short to tell the start, but not the drift"
    weights = np.where(np.arange(WALKERS) < 16, 1.0, 0.0)
    offset["2"][:, :16] = autoregressive(np.random.default_rng(2), SWEEPS, 16, 0.5)
    assert drifting_terms(offset, None, weights) == [], "chains of weight zero do not count"


def test_where_a_drift_cannot_be_told() -> None:
    ramp = np.arange(12.0)[:, None] + np.random.default_rng(1).normal(size=(12, 8))
    assert drifting_terms({"ramp": ramp}) == ["ramp"]
    assert drifting_terms({"ramp": ramp[:3]}) == []
    assert drifting_terms({"ramp": ramp}, np.arange(8)) == [], "a chain for each stratum"
    assert drifting_terms({"constant": np.full((12, 8), 0.1), "broken": np.full((12, 8), np.nan)}) == []
