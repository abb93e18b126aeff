"""Error bars against series whose errors are known."""

import math

import numpy as np
import pytest
import torch

from lightning_vfe.physics.statistics import (
    estimate,
    integrated_autocorrelation_time,
    propagate,
    split_r_hat,
)


def autoregressive(rng, steps, chains, phi):
    """Stationary x_t = phi x_{t-1} + sqrt(1 - phi^2) xi: variance 1, tau = (1 + phi) / (1 - phi)."""
    noise = rng.standard_normal((steps, chains))
    series = np.empty((steps, chains))
    series[0] = noise[0]
    for t in range(1, steps):
        series[t] = phi * series[t - 1] + math.sqrt(1 - phi**2) * noise[t]
    return series


def exact_error(steps, chains, phi):
    """Standard error of the mean of autoregressive(), exact for any length."""
    lags = np.arange(1, steps)
    inefficiency = 1 + 2 * np.sum((1 - lags / steps) * phi**lags)
    return math.sqrt(inefficiency / (steps * chains))


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_autocorrelation_time_of_an_autoregressive_series(phi):
    series = autoregressive(np.random.default_rng(0), 4000, 16, phi)
    exact = (1 + phi) / (1 - phi)
    result = estimate(series)
    assert result.autocorrelation_time == pytest.approx(exact, rel=0.08)
    assert result.effective_sample_size == pytest.approx(64_000 / exact, rel=0.08)
    assert result.effective_sample_size == pytest.approx(64_000 / integrated_autocorrelation_time(series))
    assert abs(result.r_hat - 1) < 0.01
    assert result.error == pytest.approx(exact_error(4000, 16, phi), rel=0.5)


@pytest.mark.parametrize(
    ("steps", "chains", "phi"),
    [
        (200, 16, 0.8),  # the usual case
        (20, 32, 0.95),  # chains shorter than tau = 39: only the spread of the chains tells
        (1, 32, 0.0),  # a single step
        (1500, 1, 0.8),  # a single chain: only time tells
    ],
)
def test_errors_cover_the_truth_as_often_as_they_promise(steps, chains, phi):
    repeats = 400
    pulls = []
    for seed in range(repeats):
        result = estimate(autoregressive(np.random.default_rng(seed), steps, chains, phi))
        pulls.append(abs(result.value) / result.error)
    one, two = np.mean(np.array(pulls) < 1), np.mean(np.array(pulls) < 1.96)
    # Binomial error of 400 repeats: 2.3 and 1.1 %. The larger of two errors covers a bit more than 68 and 95 %.
    assert 0.61 < one < 0.80, f"{one:.3f} within one error"
    assert 0.91 < two < 0.995, f"{two:.3f} within 1.96 errors"


def test_spread_between_twists_is_no_error():
    rng = np.random.default_rng(1)
    twist = np.arange(24) % 8
    series = autoregressive(rng, 300, 24, 0.6) + 5.0 * twist
    stratified, naive = estimate(series, twist), estimate(series)
    assert stratified.value == naive.value == pytest.approx(series.mean())
    assert stratified.error == pytest.approx(exact_error(300, 24, 0.6), rel=0.5)
    assert naive.error > 20 * stratified.error
    assert stratified.r_hat < 1.05 < naive.r_hat
    assert stratified.autocorrelation_time == pytest.approx(4.0, rel=0.25)


def test_stratified_errors_cover_the_truth():
    twist = np.arange(16) % 4
    pulls = []
    for seed in range(300):
        result = estimate(autoregressive(np.random.default_rng(seed), 60, 16, 0.7) + twist, torch.tensor(twist))
        pulls.append(abs(result.value - 1.5) / result.error)
    assert 0.60 < np.mean(np.array(pulls) < 1) < 0.81
    assert 0.90 < np.mean(np.array(pulls) < 1.96) < 0.995


def test_one_walker_per_twist_takes_its_error_from_time():
    twist = np.arange(16)
    series = autoregressive(np.random.default_rng(3), 400, 16, 0.5) + 3.0 * twist
    result = estimate(series, twist)
    assert result.error == pytest.approx(exact_error(400, 16, 0.5), rel=0.5)
    assert result.r_hat < 1.05
    drifting = series + np.linspace(0, 5, 400)[:, None] * (-1.0) ** twist  # up in half of the chains, down in the other
    assert estimate(drifting, twist).r_hat > 1.3
    assert math.isnan(estimate(series[:2], twist).error)


def test_r_hat_sees_separate_and_drifting_chains():
    series = autoregressive(np.random.default_rng(4), 200, 8, 0.3)
    assert split_r_hat(series) < 1.02
    assert split_r_hat(series + np.arange(8)) > 1.5
    assert split_r_hat(series + np.linspace(0, 4, 200)[:, None]) > 1.2
    stuck = np.broadcast_to(np.arange(8.0), (200, 8))
    result = estimate(stuck)
    assert result.r_hat == math.inf and result.effective_sample_size == 8
    assert result.error == pytest.approx(np.arange(8.0).std(ddof=1) / math.sqrt(8))


def test_r_hat_of_a_small_case_by_hand():
    """Two chains of four steps: halves (1,2), (3,4), (2,2), (4,6); within = 0.75, means 1.5, 3.5, 2, 5."""
    series = np.array([[1.0, 2.0], [2.0, 2.0], [3.0, 4.0], [4.0, 6.0]])
    within = np.mean([0.5, 0.5, 0.0, 2.0])
    between_over_n = np.var([1.5, 3.5, 2.0, 5.0], ddof=1)
    assert split_r_hat(series) == pytest.approx(math.sqrt((within / 2 + between_over_n) / within))


@pytest.mark.parametrize("shape", [(1, 5), (3, 1), (50, 4)])
def test_constant_series(shape):
    result = estimate(np.full(shape, 0.1))
    assert result.value == 0.1 and result.error == 0 and result.autocorrelation_time == 1
    assert result.effective_sample_size == shape[0] * shape[1] and result.r_hat == 1


def test_few_steps():
    rng = np.random.default_rng(5)
    single = estimate(rng.standard_normal((1, 1)) + 1)
    assert math.isnan(single.error)
    assert math.isnan(split_r_hat(rng.standard_normal((3, 2))))
    for steps in range(1, 8):
        series = rng.standard_normal((steps, 200))
        result = estimate(series)
        assert result.error == pytest.approx((200 * steps) ** -0.5, rel=0.8)
        assert 1 <= result.autocorrelation_time <= steps


def test_bad_series_are_refused_in_one_line():
    good = np.ones((5, 4))
    bad = good.copy()
    bad[2, 1] = bad[3, 0] = np.nan
    cases = [
        ((bad,), "2 non-finite values of 20, the first at step 2 of chain 1"),
        ((good[0],), r"shape \(4,\)"),
        ((good[:0],), r"shape \(0, 4\)"),
        ((good + 0j,), "complex"),
        ((good, [0, 1, 0]), "one label for each of the 4 chains"),
        ((good, [0, 1, 0, 0]), "1 to 3 chains"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message) as caught:
            estimate(*arguments)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="same steps and chains"):
        propagate(lambda a, b: a + b, [good, good[:3]])


def test_propagation_is_exact_for_linear_functions():
    rng = np.random.default_rng(6)
    first, second = rng.standard_normal((2, 40, 12))
    second += 0.9 * first
    by_sample = estimate(2 * first - 3 * second)
    by_slopes = propagate(lambda a, b: 2 * a - 3 * b, [torch.tensor(first), second])
    assert by_slopes.value == pytest.approx(by_sample.value) and by_slopes.error == pytest.approx(by_sample.error)


def test_propagation_covers_a_ratio_of_correlated_means():
    pulls = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        common = autoregressive(rng, 50, 20, 0.5)
        numerator = 3 + common + 0.2 * rng.standard_normal((50, 20))
        result = propagate(lambda a, b: a / b, [numerator, 2 + 0.6 * common])
        pulls.append(abs(result.value - 1.5) / result.error)
    assert 0.61 < np.mean(np.array(pulls) < 1) < 0.81
    assert 0.91 < np.mean(np.array(pulls) < 1.96) < 0.995
