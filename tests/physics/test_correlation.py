"""Correlations of means against known ones."""

import numpy as np
import pytest

from lightning_vfe.physics.correlation import correlation_of_means

EXACT = np.array([[1.0, 0.8, -0.3], [0.8, 1.0, 0.1], [-0.3, 0.1, 1.0]])


@pytest.mark.parametrize("block_length", [1, 16])
def test_correlated_chains_in_two_strata(block_length: int) -> None:
    """Autocorrelated series of three quantities; strata differ in their means, which must not count."""
    random = np.random.default_rng(5)
    noise = np.einsum("ij,jtc->itc", np.linalg.cholesky(EXACT), random.normal(size=(3, 2000, 16)))
    for step in range(1, noise.shape[1]):
        noise[:, step] = 0.7 * noise[:, step - 1] + noise[:, step]
    strata = np.repeat([0, 1], 8)
    found = correlation_of_means(noise + 10.0 * strata, block_length, strata)
    np.testing.assert_allclose(found, EXACT, atol=0.06)
    assert np.linalg.eigvalsh(found).min() > 0.0


def test_slow_parts_count_in_long_blocks_alone() -> None:
    """Two quantities with independent fast noise and the same slow part: their means are nearly equal."""
    random = np.random.default_rng(6)
    slow = np.repeat(random.normal(size=(100, 20)), 50, axis=0)
    first, second = (slow + 2.0 * random.normal(size=slow.shape) for _ in range(2))
    short, long = (correlation_of_means([first, second], length)[0, 1] for length in (1, 50))
    assert short == pytest.approx(1.0 / 5.0, abs=0.03)
    assert long == pytest.approx(1.0 / (1.0 + 4.0 / 50.0), abs=0.03)


def test_a_constant_is_correlated_with_nothing() -> None:
    values = np.random.default_rng(7).normal(size=(10, 4))
    np.testing.assert_array_equal(correlation_of_means([values, np.ones((10, 4))]), np.eye(2))
