"""The gap of p(x) against toys whose A(x) and noise are known exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import hyp0f1

from lightning_vfe.physics import flow_gap as module
from lightning_vfe.physics.flow_gap import FlowGap, flow_gap
from lightning_vfe.physics.statistics import estimate

KT, NUM_ATOMS, MEAN = 0.02, 3, 5.0
UNIT = KT / NUM_ATOMS
"""One kT of the cell, in Ha per atom."""


def with_noise(
    exact: np.ndarray, noise: float, electrons: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """F per atom and the variance of the mean, of A (steps, walkers) seen through B electron walkers.

    Args:
        exact: A.
        noise: variance s^2 of the mean over the electron walkers, in (kT)^2.
        electrons: B.
        rng: random numbers.
    """
    each = exact[..., None] + rng.normal(0.0, math.sqrt(noise * electrons), (*exact.shape, electrons))
    return UNIT * each.mean(-1), KT**2 * each.var(-1, ddof=1) / electrons


def gaussian(variance: float, noise: float, electrons: int, seed: int, shape: tuple[int, int] = (200, 16)) -> FlowGap:
    rng = np.random.default_rng(seed)
    exact = rng.normal(MEAN, math.sqrt(variance), shape)
    return flow_gap(*with_noise(exact, noise, electrons, rng), electrons, KT, NUM_ATOMS)


def test_weights_of_many_electrons_are_those_of_few() -> None:
    """Where the gamma functions of 0F1 overflow, its expansion takes over; both agree where both can be computed."""
    s2 = np.linspace(0.0, 4.0, 9)
    electrons = int(2 * module.MANY) + 2
    half = 0.5 * (electrons - 1)
    expanded = module._weights(np.zeros(9), s2, electrons)
    np.testing.assert_allclose(expanded, hyp0f1(half, -0.5 * half * s2), rtol=1e-4)
    assert np.isnan(hyp0f1(400.0, -100.0))
    assert np.isfinite(module._weights(np.zeros(9), s2, 801)).all()


@pytest.mark.parametrize("electrons", [2, 4, 8, 500])
@pytest.mark.parametrize("noise", [0.0, 0.2, 1.0, 8.0])
@pytest.mark.parametrize("variance", [0.01, 0.3, 1.0])
def test_gaussian_a_with_gaussian_noise(variance: float, noise: float, electrons: int) -> None:
    """A of variance v: the exact F is kT (<A> - v/2), whatever the noise; the exponential average where it carries."""
    found = gaussian(variance, noise, electrons, seed=1)
    assert found.cumulant is not None
    assert found.gap is not None
    assert abs(found.cumulant.value - UNIT * (MEAN - variance / 2)) < 2.5 * found.cumulant.error
    assert found.noise == pytest.approx(noise, rel=0.1, abs=1e-12)
    if noise > 0.25:
        assert found.exponential is None
        assert found.weights_reason.startswith("E(x) is too noisy for all orders: variance")
        assert found.free_energy is found.cumulant
    else:
        assert found.exponential is not None
        assert abs(found.exponential.value - UNIT * (MEAN - variance / 2)) < 2.5 * found.exponential.error
        assert found.free_energy is found.exponential
        expected = 3200 * math.exp(-variance - noise)
        assert found.effective_sample_size == pytest.approx(expected, rel=0.3 if variance == 1.0 else 0.15)


@pytest.mark.parametrize(("variance", "noise", "electrons"), [(0.3, 0.2, 2), (0.3, 1.0, 4), (0.01, 8.0, 2)])
def test_errors_are_those_of_repeated_measurements(variance: float, noise: float, electrons: int) -> None:
    """Pulls of 60 measurements have a mean of zero and a spread of at most one: errors err on the safe side."""
    found = [gaussian(variance, noise, electrons, seed, shape=(60, 8)) for seed in range(60)]
    for name in ("cumulant", "exponential"):
        each = [getattr(one, name) for one in found]
        if all(each):
            pulls = np.array([(one.value - UNIT * (MEAN - variance / 2)) / one.error for one in each])
            assert abs(pulls.mean()) < 3.0 / math.sqrt(len(pulls)), name
            assert 0.6 < pulls.std() < 1.3, name


def test_without_correction_the_noise_would_count_as_a_gap() -> None:
    """The plain variance of a is too large by s^2, many errors."""
    rng = np.random.default_rng(3)
    values, noise = with_noise(rng.normal(MEAN, 0.1, (200, 16)), 1.0, 4, rng)
    found = flow_gap(values, noise, 4, KT, NUM_ATOMS)
    assert found.gap is not None
    plain = 0.5 * UNIT * (values / UNIT).var()
    assert plain - found.gap.value > 20 * found.gap.error
    assert found.gap.value == pytest.approx(UNIT * 0.005, abs=2 * found.gap.error)


def test_the_variance_is_the_covariance_of_halves() -> None:
    """Averaged over the three ways to halve four electron walkers."""
    rng = np.random.default_rng(4)
    each = rng.normal(MEAN, 1.0, (50, 4, 1)) + rng.normal(0.0, 2.0, (50, 4, 4))
    found = flow_gap(UNIT * each.mean(-1), KT**2 * each.var(-1, ddof=1) / 4, 4, KT, NUM_ATOMS)
    centred = each - each.mean()
    covariances = []
    for other in (1, 2, 3):
        one = centred[..., [0, other]].mean(-1)
        rest = centred[..., [i for i in (1, 2, 3) if i != other]].mean(-1)
        covariances.append((one * rest).mean())
    # up to what the mean takes of the variance, 1 / samples
    assert found.variance == pytest.approx(np.mean(covariances), abs=2.0 * centred.mean(-1).var() / 200)


def test_harmonic_oscillators_of_the_wrong_width() -> None:
    """p(x) normal of width one, E/kT = k x^2 / 2 in d dimensions: Z = (2 pi / k)^(d/2), all orders known."""
    rng, d, k = np.random.default_rng(5), 6, 1.3
    square = (rng.normal(size=(400, 16, d)) ** 2).sum(-1)
    exact = -0.5 * d * math.log(2 * math.pi) - 0.5 * square + 0.5 * k * square
    free_energy = -0.5 * d * math.log(2 * math.pi / k)
    found = flow_gap(*with_noise(exact, 0.1, 4, rng), 4, KT, NUM_ATOMS)
    assert found.exponential is not None
    assert found.cumulant is not None
    assert abs(found.exponential.value - UNIT * free_energy) < 2.5 * found.exponential.error
    second_order = 0.5 * d * ((k - 1) - math.log(2 * math.pi) - 0.5 * (k - 1) ** 2)
    assert abs(found.cumulant.value - UNIT * second_order) < 2.5 * found.cumulant.error
    assert found.variance == pytest.approx(0.5 * d * (k - 1) ** 2, rel=0.1)


def test_skewed_noise_gives_no_sum_of_all_orders() -> None:
    """Exponential noise of variance v for each of B: third cumulant 2 v^(3/2) / B^2, which moves F by -kT/3 of that."""
    rng, electrons, noise = np.random.default_rng(8), 4, 0.2
    scale = math.sqrt(noise * electrons)
    exact = rng.normal(MEAN, math.sqrt(0.1), (400, 32))[..., None]
    each = exact + scale * (rng.exponential(size=(400, 32, electrons)) - 1.0)
    values, spread = UNIT * each.mean(-1), KT**2 * each.var(-1, ddof=1) / electrons
    third = (
        KT**3 * ((each - each.mean(-1, keepdims=True)) ** 3).sum(-1) / ((electrons - 1) * (electrons - 2) * electrons)
    )
    blind = flow_gap(values, spread, electrons, KT, NUM_ATOMS)
    assert blind.exponential is not None
    expected = -UNIT * 2 * scale**3 / electrons**2 / 3
    moved = blind.exponential.value - UNIT * (MEAN - 0.05)
    assert moved < -3 * blind.exponential.error, "it would be wrong"
    assert moved == pytest.approx(expected, rel=0.5), "up to higher cumulants"
    found = flow_gap(values, spread, electrons, KT, NUM_ATOMS, skew=third)
    assert found.exponential is None
    assert found.weights_reason.startswith("the noise of E(x) is not Gaussian")
    bias = float(found.weights_reason.split()[-2])
    assert bias == pytest.approx(expected, rel=0.15)
    assert found.gap is not None
    assert found.free_energy is found.cumulant
    assert abs(found.gap.value - UNIT * 0.05) < 2.5 * found.gap.error
    few = flow_gap(values, spread, electrons, KT, NUM_ATOMS, skew=np.full_like(third, math.nan))
    assert few.exponential is None
    assert "at least three" in few.weights_reason


def test_correlated_chains_have_larger_errors() -> None:
    """Chains with an autocorrelation time of 19 steps: the same answer, an error that has grown accordingly."""
    rng, rho = np.random.default_rng(6), 0.9
    exact = np.empty((2000, 8))
    exact[0] = rng.normal(size=8)
    for step in range(1, len(exact)):
        exact[step] = rho * exact[step - 1] + math.sqrt(1 - rho**2) * rng.normal(size=8)
    exact = MEAN + math.sqrt(0.3) * exact
    found = flow_gap(*with_noise(exact, 0.1, 4, rng), 4, KT, NUM_ATOMS)
    fresh = gaussian(0.3, 0.1, 4, seed=6, shape=exact.shape)
    for name in ("cumulant", "exponential"):
        slow, fast = getattr(found, name), getattr(fresh, name)
        assert abs(slow.value - UNIT * (MEAN - 0.15)) < 2.5 * slow.error
        assert slow.error > 2.0 * fast.error
    assert found.effective_sample_size < 0.3 * fresh.effective_sample_size


def test_twists_have_means_and_variances_of_their_own() -> None:
    """Two twists of weights 1/4 and 3/4: the weighted mean of their free energies; their distance is no variance."""
    rng, weight = np.random.default_rng(7), np.array([0.25, 0.75])
    labels, means, variances = np.arange(16) % 2, np.array([4.0, 9.0]), np.array([0.1, 0.4])
    exact = rng.normal(means[labels], np.sqrt(variances)[labels], (300, 16))
    values, noise = with_noise(exact, 0.1, 4, rng)
    found = flow_gap(torch.tensor(values), torch.tensor(noise), 4, KT, NUM_ATOMS, torch.tensor(labels), weight[labels])
    expected = UNIT * weight @ (means - variances / 2)
    for result in (found.cumulant, found.exponential):
        assert result is not None
        assert abs(result.value - expected) < 2.5 * result.error
    assert found.variance == pytest.approx(weight @ variances, rel=0.1)
    assert found.gap is not None
    upper = estimate(values, labels, weight[labels])
    assert upper.value - found.gap.value == pytest.approx(found.free_energy.value, abs=1e-12)


def test_what_cannot_be_given_has_a_reason() -> None:
    rng = np.random.default_rng(8)
    exact = rng.normal(MEAN, 0.5, (100, 8))
    alone = flow_gap(UNIT * exact, np.zeros_like(exact), 1, KT, NUM_ATOMS)
    assert alone.free_energy is None
    assert alone.gap is None
    assert alone.reason.startswith("one electron walker for each proton walker does not show the noise")
    short = flow_gap(*with_noise(exact[:2, :4], 0.1, 4, rng), 4, KT, NUM_ATOMS)
    assert short.gap is None
    assert "independent proton samples" in short.reason
    far = gaussian(9.0, 0.1, 4, seed=9)
    assert far.gap is None
    assert far.reason.startswith("Var(A) = ")
    assert far.reason.endswith("p(x) is too far away")
    thin = gaussian(1.6, 0.1, 4, seed=10, shape=(30, 16))
    assert thin.cumulant is not None
    assert thin.exponential is None
    assert thin.weights_reason.startswith("the weights exp(-A) do not carry all orders")
