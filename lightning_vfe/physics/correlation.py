"""How the means of several series of the same chains are correlated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lightning_vfe.physics.series import Series, checked_series, checked_weights, stratum_means


def correlation_of_means(
    series: Sequence[Series],
    block_length: int = 1,
    strata: Sequence[int] | Series | None = None,
    weights: Sequence[float] | Series | None = None,
) -> np.ndarray:
    """Correlation matrix of the means of several quantities that are measured on the same samples.

    Each chain is cut into blocks; the block means, centred in their stratum and weighted by the squares of the chains'
    weights, give the covariance. For blocks longer than the autocorrelation time this is that of the means, up to a
    common factor. A quantity that is constant is correlated with none. The matrix is positive semi-definite, and
    quicker to know than a covariance: multiply it by the errors of `statistics.estimate`.

    Args:
        series: real samples of each quantity.  # (steps, chains) each
        block_length: steps of a block.
        strata: label of each chain.  # (chains,)
        weights: what each chain counts in the means.  # (chains,)

    Returns:
        # (quantities, quantities)

    Raises:
        ValueError: as of `statistics.estimate`.
    """
    deviations = []
    for one in series:
        values, labels = checked_series(one, strata)
        omega = checked_weights(weights, values.shape[1])
        blocks = max(1, len(values) // block_length)
        length = len(values) // blocks
        means = values[: blocks * length].reshape(blocks, length, -1).mean(axis=1)  # (blocks, chains)
        deviations.append(((means - stratum_means(means, labels)) * omega).ravel())
    covariance = np.atleast_2d(np.stack(deviations) @ np.stack(deviations).T)
    spread = np.sqrt(np.diag(covariance))
    scale = np.where(spread > 0, spread, 1.0)
    matrix = covariance / np.outer(scale, scale)
    np.fill_diagonal(matrix, 1.0)
    return np.asarray(matrix)
