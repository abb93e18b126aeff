"""Error bars against series whose errors are known."""

import math

import numpy as np
import pytest
import torch

from lightning_vfe.physics.statistics import estimate, integrated_autocorrelation_time, largest_share, split_r_hat


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
    assert result.r_hat == math.inf
    assert result.effective_sample_size == 8
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
    assert result.value == 0.1
    assert result.error == 0
    assert result.autocorrelation_time == 1
    assert result.effective_sample_size == shape[0] * shape[1]
    assert result.r_hat == 1


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
        ((good, None, [1.0, 1.0, 1.0]), r"^weights have shape \(3,\); give one number for each of the 4 chains"),
        ((good, None, np.ones((5, 4))), r"^weights have shape \(5, 4\)"),
        ((good, None, 1.0), r"^weights have shape \(\)"),
        ((good, None, [1, 1, -0.5, 1]), "^weights are -0.5 for chain 2; all must be finite and not negative"),
        ((good, None, torch.tensor([1, math.nan, 1, 1])), "^weights are nan for chain 1"),
        ((good, None, [1, 1, 1, math.inf]), "^weights are inf for chain 3"),
        ((good, None, [0, 0, 0, 0]), "^weights are zero for all chains; at least one must be positive"),
        ((good, None, [1j, 1, 1, 1]), "^weights have the dtype complex128; give real numbers"),
        ((good, None, ["1", "1", "1", "1"]), "^weights have the dtype .*; give real numbers"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message) as caught:
            estimate(*arguments)
        assert "\n" not in str(caught.value)


def wavy(steps, chains):
    """A correlated series without random numbers; chains c, c + 4, c + 8 ... have the same mean."""
    series = np.sin(np.arange(1.0, steps * chains + 1) ** 2).reshape(steps, chains)
    for t in range(1, steps):
        series[t] += 0.6 * series[t - 1]
    return series + np.arange(chains) % 4


@pytest.mark.parametrize(
    ("steps", "chains", "with_strata", "expected"),
    [
        (60, 12, False, (1.5000049503961725, 0.30111482074359575, 60.0, 12.0, 1.5662146332395956)),
        (
            60,
            12,
            True,
            (1.5000049503961725, 0.04579868328249571, 3.784365312184894, 190.2564738350563, 1.0256006966763278),
        ),
        (3, 12, True, (1.3533283681052632, 0.16331743166724033, 1.0, 36.0, math.nan)),
        (
            60,
            4,
            True,
            (1.5335758229776917, 0.10341552479396743, 3.3286303352623516, 72.10172828671406, 1.0451372490561193),
        ),
    ],
)
def test_equal_weights_give_the_plain_mean_and_its_pooled_error(steps, chains, with_strata, expected):
    """Numbers of error^2 = sum_c (m_c - M_{stratum of c})^2 / (C (C - S)) and of plain means over chains."""
    series, strata = wavy(60, 12)[:steps, :chains], np.arange(chains) % 4 if with_strata else None
    plain = estimate(series, strata)
    assert tuple(plain) == pytest.approx(expected, rel=1e-12, nan_ok=True)
    for weights in (np.ones(chains), [1 / 3] * chains, torch.full((chains,), 64, dtype=torch.int64)):
        assert tuple(estimate(series, strata, weights)) == pytest.approx(tuple(plain), rel=1e-15, nan_ok=True)


def test_weighted_estimate_by_hand():
    """Two strata of two chains, two steps: means 2, 4 and 10, 13; s^2 = 2 and 4.5; omega = (1, 1, 3, 0) / 5."""
    series = np.array([[1.0, 4.0, 9.0, 13.0], [3.0, 4.0, 11.0, 13.0]])
    result = estimate(series, [7, 7, 8, 8], [2.0, 2.0, 6.0, 0.0])
    assert result.value == pytest.approx((2 + 4 + 3 * 10) / 5)
    assert result.error == pytest.approx(math.sqrt(2 * (1 + 1) + 4.5 * 9) / 5)
    assert result.effective_sample_size == pytest.approx(2 * 5**2 / (1 + 1 + 9))
    plain = estimate(series, [7, 7, 8, 8])
    assert result.autocorrelation_time == plain.autocorrelation_time


def test_whole_weights_are_those_of_repeated_twists():
    """A chain of weight k has the value and the time series of k equal chains of weight one."""
    series, counts = wavy(60, 4), np.array([1, 3, 3, 1])
    weighted, repeated = estimate(series, range(4), counts), np.repeat(series, counts, axis=1)
    assert weighted.value == pytest.approx(repeated.mean(), rel=1e-14)
    assert weighted.error == pytest.approx(estimate(repeated, range(8)).error, rel=1e-12)  # both from time


def test_chains_without_weight_do_not_count():
    strata = np.arange(12) % 4
    series, weights = wavy(60, 12), (strata != 3).astype(float)
    others = estimate(series[:, strata != 3], strata[strata != 3])
    result = estimate(series, strata, weights)
    assert result.value == pytest.approx(others.value)
    assert result.error == pytest.approx(others.error)
    constant = estimate(np.full((5, 4), 2.0), None, [1, 0, 0, 0])
    assert constant == (2.0, 0.0, 1.0, 5.0, 1.0)


STRATUM = {
    "mean": np.array([-3.0, 0.0, 1.0, 7.0]),
    "sigma": np.array([0.5, 3.0, 1.0, 2.0]),
    "weight": np.array([8.0, 24.0, 24.0, 8.0]) / 64,
}


def weighted_results(repeats, steps, chains_per_stratum, phi):
    """Estimates of strata with different means, variances and weights; the exact value and its exact error."""
    twist = np.arange(4 * chains_per_stratum) % 4
    mean, sigma, weight = (STRATUM[name][twist] for name in ("mean", "sigma", "weight"))
    results = []
    for seed in range(repeats):
        noise = autoregressive(np.random.default_rng(seed), steps, twist.size, phi)
        results.append(estimate(mean + sigma * noise, twist, torch.tensor(weight / chains_per_stratum)))
    spread = math.sqrt((STRATUM["weight"] ** 2 * STRATUM["sigma"] ** 2).sum())
    exact = spread * exact_error(steps, chains_per_stratum, phi)
    return results, float((STRATUM["weight"] * STRATUM["mean"]).sum()), exact


@pytest.mark.parametrize(
    ("steps", "chains_per_stratum", "phi"),
    [
        (200, 8, 0.8),  # both errors
        (3, 24, 0.5),  # few steps: from the spread of the chains alone
        (600, 1, 0.7),  # one chain for each twist: from time alone
    ],
)
def test_weighted_errors_cover_the_truth(steps, chains_per_stratum, phi):
    results, truth, exact = weighted_results(400, steps, chains_per_stratum, phi)
    values, errors = np.array([result.value for result in results]), np.array([result.error for result in results])
    # The counting error of the coverage is 0.023; the larger of two errors covers somewhat more often.
    one, two = (np.mean(abs(values - truth) < factor * errors) for factor in (1, 1.96))
    assert 0.62 < one < (0.80 if chains_per_stratum == 8 else 0.74), one
    assert 0.91 < two < 0.995, two
    assert values.mean() == pytest.approx(truth, abs=4 * exact / 20)
    assert values.std() == pytest.approx(exact, rel=0.15)


def test_error_across_chains_is_unbiased_for_unequal_variances():
    """The mean of error^2 is the variance of the value; a variance pooled over the strata would not give it."""
    results, _, exact = weighted_results(600, 2, 3, 0.5)
    squares = np.array([result.error for result in results]) ** 2
    counting = squares.std() / math.sqrt(squares.size)
    assert abs(squares.mean() - exact**2) < 3 * counting
    pooled = (STRATUM["sigma"] ** 2).mean() * (STRATUM["weight"] ** 2).sum() * exact_error(2, 3, 0.5) ** 2
    assert abs(pooled - exact**2) > 5 * counting


def test_the_share_of_one_sample_in_the_variance():
    """2 ln(n) / n of normal samples, one for a single outlier, and each twist has a mean of its own."""
    rng = np.random.default_rng(11)
    series, twists = rng.standard_normal((500, 8)), np.repeat([0, 1], 4)
    assert largest_share(series) == pytest.approx(2 * math.log(4000) / 4000, rel=0.5)
    assert largest_share(series + 100.0 * twists, twists) == pytest.approx(largest_share(series, twists), rel=1e-9)
    outlier = series.copy()
    outlier[3, 5] = 1e4
    assert largest_share(outlier) > 0.99
    assert largest_share(np.ones((4, 2))) == 0.0
