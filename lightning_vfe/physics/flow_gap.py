"""How far F of the sampled p(x) lies above the exact free energy of the same E_psi(x), from noisy energies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import hyp0f1

from lightning_vfe.physics.series import Series, stratum_means
from lightning_vfe.physics.statistics import Estimate, estimate, integrated_autocorrelation_time

MIN_INDEPENDENT = 20.0
"""Independent proton samples of a twist that a variance needs."""
MAX_GAP = 0.25
"""In kT per atom: farther away, the second cumulant is too large by much, since rare x have a large A."""
MIN_WEIGHTED = 100.0
"""Effective samples that the exponential average needs at each twist."""
MIN_FRACTION = 0.1
"""Of the independent samples that must be effective: below it, the samples that count most may be missing."""
MAX_NOISE = 0.25
"""In (kT)^2: the exponential average corrects Gaussian noise exactly, and other noise only if it is small."""
MANY = 100.0
"""Half of the degrees of freedom of s^2 from which on ln 0F1 is expanded in s^2."""
MAX_BIAS = 0.5
"""Errors by which noise that is not Gaussian may move the exponential average."""


@dataclass(frozen=True)
class FlowGap:
    """The gap of p(x) at one state point, per atom in Ha, with A(x) = ln p(x) + E_psi(x)/kT.

    Attributes:
        variance: Var(A) over p(x) without the noise of the electrons, of the whole cell.
        noise: mean variance of the noise of A; 1 means kT.
        gap: F - `free_energy`; None where it cannot be given.
        cumulant: F - kT/2 Var(A) / N, the exact free energy of E_psi to second order; None where it cannot be given.
        exponential: the same to all orders, -kT ln <exp(-A)> / N; None where the weights do not carry.
        effective_sample_size: of the weights exp(-A), at the twist that has the fewest.
        reason: why there is no gap; empty if there is one.
        weights_reason: why there is no exponential average; empty if there is one.
    """

    variance: float = np.nan
    noise: float = np.nan
    gap: Estimate | None = None
    cumulant: Estimate | None = None
    exponential: Estimate | None = None
    effective_sample_size: float = np.nan
    reason: str = ""
    weights_reason: str = ""

    @property
    def free_energy(self) -> Estimate | None:
        """The exact free energy of E_psi: the exponential average where its weights carry, else to second order."""
        return self.exponential or self.cumulant

    def note(self, apart: str = "") -> str:
        """How the gap was estimated, or why it was not; `apart` comes after the order."""
        if self.reason:
            return self.reason
        if self.exponential is not None:
            return f"all orders{apart}; the weights exp(-A) have {self.effective_sample_size:.0f} effective samples"
        return f"second order{apart}; {self.weights_reason}"


def flow_gap(
    free_energy: Series,
    noise: Series,
    num_electron_walkers: int,
    kT: float,
    num_atoms: int,
    strata: Sequence[int] | Series | None = None,
    weights: Sequence[float] | Series | None = None,
    skew: Series | None = None,
) -> FlowGap:
    r"""The exact free energy of E_psi(x), from walkers that sample p(x) and know E_psi(x) with noise.

        F       = kT <A>_p,        A(x) = ln p(x) + E_psi(x)/kT
        F_exact = -kT ln <exp(-A)>_p = F - kT/2 Var(A) + ...     <= F

    A walker sees a = A + noise, from the mean over B electron walkers. With the variance s^2 of that mean,

        Var(A) = <(a - <a>)^2 - s^2>,

    which is the covariance of a between two halves of the electron walkers, averaged over all ways to halve them.
    The exponential average takes exp(-a) 0F1((B-1)/2; -(B-1) s^2 / 4) for exp(-A). It is unbiased for Gaussian noise,
    also if s^2 comes from few electron walkers; for many it is exp(-a - s^2/2). A third cumulant c of the noise of a
    moves <exp(-a)> by -c/6, and its covariance with s^2, which is c, by c/2: F_exact moves by -kT c/3. Where that is
    more than half of the error, there is no exponential average.

    Every twist has a mean and a variance of its own: with several, F_exact is the weighted mean of those of the twists.
    Errors are those of `estimate` for the series of (a - <a>)^2 - s^2, and of exp(-a), linearised.

    Args:
        free_energy: F of each proton walker, per atom in Ha: kT a / N up to a constant.  # (steps, walkers)
        noise: variance of the mean of E_loc over the electron walkers, whole cell, Ha^2.  # (steps, walkers)
        num_electron_walkers: B; with one the noise is unknown, and the result has a reason only.
        kT: in Ha.
        num_atoms: N.
        strata: twist of each walker.  # (walkers,)
        weights: of each walker.  # (walkers,)
        skew: third cumulant of the mean of E_loc over the electron walkers, whole cell, Ha^3, nan where it is not
            known; None takes Gaussian noise.  # (steps, walkers)

    Source: Zwanzig, J. Chem. Phys. 22, 1420 (1954); Ceperley and Dewing, J. Chem. Phys. 110, 9812 (1999);
    Finney, J. R. Stat. Soc. Suppl. 7, 155 (1941).
    """
    if num_electron_walkers < 2:
        return _without("one electron walker for each proton walker does not show the noise of E(x); take at least two")
    raw = estimate(free_energy, strata, weights)
    values, scale = np.asarray(free_energy, dtype=np.float64), kT / num_atoms
    reduced, s2 = values / scale, np.asarray(noise, dtype=np.float64) / kT**2
    labels = np.zeros(values.shape[1], np.int64) if strata is None else np.unique(strata, return_inverse=True)[1]
    samples = values.size / (labels.max() + 1)
    independent = samples / raw.autocorrelation_time
    if independent < MIN_INDEPENDENT:
        return _without(f"only {independent:.0f} independent proton samples at each twist")
    centred = reduced - stratum_means(reduced, labels)
    # The mean is of the same samples: it follows them by 1 / independent of their variance.
    squares = centred**2 / (1.0 - 1.0 / independent) - s2
    variance, noise_level = estimate(squares, strata, weights), estimate(s2, strata, weights).value
    if variance.value - 2.0 * variance.error > 2.0 * MAX_GAP * num_atoms:
        reason = f"Var(A) = {variance.value:.3g} is more than {2 * MAX_GAP:g} per atom: p(x) is too far away"
        return FlowGap(variance.value, noise_level, reason=reason, weights_reason=reason)
    gap = estimate(0.5 * scale * squares, strata, weights)
    cumulant = estimate(values - 0.5 * scale * squares, strata, weights)
    shift = centred.min()
    weight = _weights(centred - shift, s2, num_electron_walkers)
    size, reason = _verdict(weight, labels, noise_level)
    exponential = None
    if not reason:
        mean = stratum_means(weight, labels)
        series = scale * (reduced - centred + shift - np.log(mean) - (weight / mean - 1.0))
        found = estimate(series, strata, weights)
        third = np.zeros_like(values) if skew is None else np.asarray(skew, dtype=np.float64) / kT**3
        is_known = not np.isnan(third).any()
        reason = _skewed(-scale / 3.0 * estimate(third, strata, weights).value if is_known else np.nan, found)
        if not reason:
            exponential, gap = found, estimate(values - series, strata, weights)
    return FlowGap(variance.value, noise_level, gap, cumulant, exponential, size, "", reason)


def _without(reason: str) -> FlowGap:
    return FlowGap(reason=reason, weights_reason=reason)


def _skewed(bias: float, exponential: Estimate) -> str:
    """Why noise that moves the exponential average by this bias, nan where it is not known, forbids it."""
    if np.isnan(bias):
        return "two electron walkers do not show whether the noise of E(x) is Gaussian; take at least three"
    if abs(bias) > MAX_BIAS * exponential.error:
        return f"the noise of E(x) is not Gaussian, which moves the sum of all orders by {bias:.2g} Ha/atom"
    return ""


def _weights(shifted: np.ndarray, s2: np.ndarray, num_electron_walkers: int) -> np.ndarray:
    """exp(-A) up to a factor, on average over Gaussian noise of the given a; single ones can be negative."""
    half = 0.5 * (num_electron_walkers - 1)
    if half > MANY:  # the gamma functions in 0F1 overflow; its logarithm to third order in s2
        log = -0.5 * s2 - s2**2 / (8.0 * (half + 1.0)) - s2**3 / (12.0 * (half + 1.0) * (half + 2.0))
        large: np.ndarray = np.exp(log - shifted)
        return large
    found: np.ndarray = np.exp(-shifted) * hyp0f1(half, -0.5 * half * s2)
    return found


def _verdict(weight: np.ndarray, labels: np.ndarray, noise: float) -> tuple[float, str]:
    """Effective samples of the weights at the twist with the fewest, and why they do not carry."""
    tau = integrated_autocorrelation_time(weight, labels)
    total, square = (np.bincount(labels, power.sum(axis=0)) for power in (weight, weight**2))
    size = float((total**2 / square).min()) / tau
    fraction = size * tau * (labels.max() + 1) / weight.size
    if noise > MAX_NOISE:
        return size, f"E(x) is too noisy for all orders: variance {noise:.3g} (kT)^2, above {MAX_NOISE:g}"
    if not (total > 0).all() or size < MIN_WEIGHTED or fraction < MIN_FRACTION:
        found = f"{size:.0f} effective samples, {100 * fraction:.2g} % of all"
        return size, f"the weights exp(-A) do not carry all orders: {found}"
    return size, ""
