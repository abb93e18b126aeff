"""Weights from p(x) to exp(-E/kT), with Gaussians as exact case."""

import numpy as np
import pytest

from lightning_vfe.physics.reweighting import boltzmann_weights

KT, NUM = 0.5, 200_000


@pytest.mark.parametrize("size", [0.0, 0.3])
def test_averages_and_integral_are_those_of_the_boltzmann_distribution(size: float) -> None:
    """E = x^2/2 from samples of a wider Gaussian; noise that grows with |x| would shift both without its term."""
    random = np.random.default_rng(1)
    x = 1.3 * random.normal(size=NUM)
    log_prob = -0.5 * (x / 1.3) ** 2 - np.log(1.3 * np.sqrt(2.0 * np.pi))
    error = size * np.abs(x) * KT
    energy = 0.5 * x**2 + error * random.normal(size=NUM)
    found = boltzmann_weights(energy, error, log_prob, KT)
    weight = np.exp(found.log_weight)
    assert weight.mean() == pytest.approx(1.0)
    deviation = weight.std() / np.sqrt(NUM)
    assert abs(found.log_mean - 0.5 * np.log(2.0 * np.pi * KT)) < 4.0 * deviation
    second = weight * x**2
    assert abs(second.mean() - KT) < 4.0 * (weight * (x**2 - KT)).std() / np.sqrt(NUM)
    assert found.effective_size == pytest.approx(NUM / (weight**2).mean())
    assert found.noise == pytest.approx((size * 1.3) ** 2, rel=0.02, abs=1e-12)


def test_samples_of_the_wanted_distribution_weigh_the_same() -> None:
    x = np.random.default_rng(2).normal(size=100)
    found = boltzmann_weights(0.5 * KT * x**2, np.zeros(100), -0.5 * x**2, KT)
    assert found.log_weight == pytest.approx(np.zeros(100), abs=1e-12)
    assert found.effective_size == pytest.approx(100.0)
