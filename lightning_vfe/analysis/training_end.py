"""Whether a training seems to be at its end."""

from __future__ import annotations

import math

import numpy as np

from lightning_vfe.analysis.run import RunFolder
from lightning_vfe.physics.statistics import integrated_autocorrelation_time

FEW_STEPS = 40
"""Steps below which nothing can be said of the end of a training."""
SIGNIFICANT = 3.0
"""In standard errors."""


def training_note(run: RunFolder) -> str:
    """A line where a training is short, or F still falls over its last quarter; else nothing.

    The converged averages of `test` are those of the parameters as they are. They do not say that F is near its
    minimum. The verdict on the training that `test` has stored comes first. Results of earlier versions have none: then
    the last quarter of the steps is compared with the one before, at the state where F falls most.
    """
    verdict = (run.summary.get("verdicts") or {}).get("training") if run.tested else None
    if verdict is not None:
        return (
            "" if verdict.get("ok") is not False else "; ".join(map(str, verdict.get("reasons") or ["not at its end"]))
        )
    if not run.fitted:
        return ""
    steps = len(run.metrics)
    if steps < FEW_STEPS:
        return f"the training has {steps} steps only: F is an upper bound that more steps lower"
    falls = [_fall(view.metrics["free_energy_per_atom"].to_numpy(), steps // 4) for view in run.views if _has_f(view)]
    fall, error = max(falls, key=lambda each: each[0], default=(0.0, math.inf))
    if fall <= SIGNIFICANT * error:
        return ""
    return f"F fell by {1000 * fall:.2g} mHa/atom over the last quarter of the training: more steps lower it"


def _has_f(view: RunFolder) -> bool:
    return "free_energy_per_atom" in view.metrics


def _fall(values: np.ndarray, quarter: int) -> tuple[float, float]:
    """Mean of the quarter before the last minus that of the last one, and the error of it."""
    parts = [values[-2 * quarter : -quarter], values[-quarter:]]
    if not all(np.isfinite(part).all() for part in parts):
        return 0.0, math.inf
    variance = sum(part.var(ddof=1) * integrated_autocorrelation_time(part[:, None]) / quarter for part in parts)
    return float(parts[0].mean() - parts[1].mean()), math.sqrt(variance)
