"""Weights that turn samples of p(x) into samples of exp(-E(x)/kT), where E(x) is known with noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp


@dataclass(frozen=True)
class BoltzmannWeights:
    """Weights of samples of p(x) for averages over exp(-E(x)/kT).

    Attributes:
        log_weight: ln w, shifted so that the mean of w is one.  # (n,)
        log_mean: ln of the mean of w before the shift. It estimates ln int exp(-E(x)/kT) dx, from below on average.
        effective_size: Kish's (sum w)^2 / sum w^2.
        noise: mean of (s/kT)^2, s the standard error of E. It divides the effective size by about exp(noise).
    """

    log_weight: np.ndarray
    log_mean: float
    effective_size: float
    noise: float


def boltzmann_weights(
    energy: np.ndarray, energy_error: np.ndarray, log_prob: np.ndarray, kT: float
) -> BoltzmannWeights:
    r"""ln w = -E/kT - s^2 / (2 (kT)^2) - ln p.

    Noise of E makes exp(-E/kT) too large on average, by exp(s^2 / (2 (kT)^2)) if it is Gaussian. The second term takes
    that off. What is left is the error of s and of the Gaussian form. An average of the same noisy E with these weights
    has a bias of its own, -s^2/kT: take independent energies for it, or keep s far below kT.

    Args:
        energy: E(x), whole cell, in Ha.  # (n,)
        energy_error: s, its standard error in Ha.  # (n,)
        log_prob: ln p(x).  # (n,)
        kT: in Ha.

    Source: Ceperley and Dewing, J. Chem. Phys. 110, 9812 (1999); Kish, Survey Sampling (1965), ch. 11.
    """
    noise = np.square(np.asarray(energy_error, dtype=np.float64) / kT)
    raw = -np.asarray(energy, dtype=np.float64) / kT - 0.5 * noise - np.asarray(log_prob, dtype=np.float64)
    log_mean = float(logsumexp(raw)) - np.log(len(raw))
    shifted = raw - log_mean
    size = np.exp(2.0 * logsumexp(shifted) - logsumexp(2.0 * shifted))
    return BoltzmannWeights(shifted, log_mean, float(size), float(noise.mean()))
