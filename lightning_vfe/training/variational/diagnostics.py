"""The diagnostics of a measurement: their units, their limits, and a word on each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

MAX_R_HAT = 1.05
MIN_EFFECTIVE_SAMPLES = 100.0
MAX_SHARE = 0.2
"""Of the variance of F from a single sample: beyond it, the error of F depends on this sample."""
MAX_ELECTRON_DRIFT = 0.05
MAX_NOISE = 2.0
"""Of (s/kT)^2, the noise of the energy differences of ceimc: beyond it, more electrons cost less than rejections."""
MAX_NOISE_PER_FREEDOM = 0.25
"""Of the same over the degrees of freedom of s: beyond it, the penalty is not exact."""
MAX_UNREACHED = 0.01
"""Fraction of the base protons without an x, above which the training is to blame."""


class Diagnostic(NamedTuple):
    """One number about the chains.

    Attributes:
        name: in summary.json.
        value: as it was measured.
        unit: 1 for a pure number.
        limit: what the value should keep; empty where there is none.
        word: ok, look, or empty where there is no limit.
    """

    name: str
    value: float
    unit: str
    limit: str
    word: str


UNITS = {
    "proton_width_rs": "rs",
    "electron_width_rs": "rs",
    "local_energy_variance": "Ha^2",
    "autocorrelation_time": "sweeps",
    "effective_sample_size": "samples",
    "equilibration_steps": "sweeps",
    "drifting_terms": "terms",
    "discarded_steps": "sweeps",
    "electron_steps": "moves",
    "num_stranded": "chains",
    "num_failed_inversions": "walkers",
}
"""Of those that are no pure numbers."""


def start_difference_limit(values: Mapping[str, float]) -> float:
    """Largest |difference of the molecular fractions of two starts| that is not to be explained by its own error."""
    return 4.0 * values["start_difference_error"]


def electron_drift_limit(values: Mapping[str, float]) -> float:
    """Largest |drift of ln|psi|^2| that is not to be explained by its own error."""
    return max(MAX_ELECTRON_DRIFT, 4.0 * values["electron_drift_error"])


def diagnostics_with_limits(values: Mapping[str, float], is_direct: bool, num_steps: int | None) -> list[Diagnostic]:
    """Every diagnostic with its unit, limit and word, in the order of the values.

    Args:
        values: by their names in summary.json.
        is_direct: protons are found from base protons, so that folds of the map do no harm.
        num_steps: measured sweeps, if they are known.
    """
    most = {"r_hat": MAX_R_HAT, "largest_share": MAX_SHARE, "molecular_r_hat": MAX_R_HAT}
    most |= {"unreached_fraction": MAX_UNREACHED, "num_stranded": 0.0, "drifting_terms": 0.0}
    most |= {"ceimc_noise": MAX_NOISE, "ceimc_noise_per_freedom": MAX_NOISE_PER_FREEDOM}
    if not is_direct:
        most["negative_determinants"] = 0.0
    if num_steps is not None:
        most["discarded_steps"] = num_steps // 2
    if "electron_drift_error" in values:
        most["electron_drift"] = electron_drift_limit(values)
    if "start_difference_error" in values:
        most["start_difference"] = start_difference_limit(values)
    found = []
    for name, value in values.items():
        limit, good = "", True
        if name in most:
            limit, good = f"<= {most[name]:.3g}", abs(value) <= most[name]
        elif name == "effective_sample_size":
            limit, good = f">= {MIN_EFFECTIVE_SAMPLES:g}", value >= MIN_EFFECTIVE_SAMPLES
        word = ("ok" if good else "look") if limit else ""
        found.append(Diagnostic(name, value, UNITS.get(name, "1"), limit, word))
    return found
