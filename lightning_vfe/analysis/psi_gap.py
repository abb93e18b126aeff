"""How far E lies above that of the exact psi: a line through E and the variance of E_loc along the training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import least_squares
from scipy.stats import chi2

FREE_ENERGY = "free_energy_per_atom"
OF_PSI = "free_energy_of_psi_per_atom"
"""F of a step without the gap of the flow, to second order."""
VARIANCE = "local_energy_variance"
SETTLED = 0.05
"""Gap of the flow in kT per atom: above it, the flow moves F, and not psi alone."""
MOST_BLOCKS = 30
LEAST_STEPS = 5
"""Steps of a block: their scatter gives its error."""
LEAST_BLOCKS = 6
MAX_CHI2 = 2.0
"""Of chi^2 per degree of freedom: above it the points are on no line."""
MAX_BEND = 2.0
"""Errors that the curvature may differ from zero by."""
FARTHEST = 5.0
"""Times the smallest variance: blocks with a larger one are too far from the exact psi."""
MIN_LEVER = 2.0
"""Largest variance over the smallest one of the blocks: with less, the slope says nothing about zero variance."""


@dataclass(frozen=True)
class VarianceLine:
    """E = E_0 + slope * variance / N, fitted to blocks of training steps.

    Attributes:
        slope: in 1/Ha.
        error: one standard error of the slope.
        chi2: per degree of freedom.
        bend: curvature of a parabola through the same blocks, in units of its error.
        num_blocks: blocks of the fit, from the last step backwards.
        first_step: of the fit.
        lever: largest over smallest variance of the blocks.
    """

    slope: float
    error: float
    chi2: float
    bend: float
    num_blocks: int
    first_step: int
    lever: float

    @property
    def is_straight(self) -> bool:
        """Whether the blocks lie on the line, within their errors."""
        return self.chi2 <= MAX_CHI2 and abs(self.bend) <= MAX_BEND


def after_the_flow(metrics: pd.DataFrame, kT: float) -> pd.DataFrame:
    """The steps after the last one whose gap of the flow, F - F of psi, is above 0.05 kT per atom by two errors.

    The gap is a running mean over a tenth of the steps, at least 20. A gap within its noise leaves all steps.

    Args:
        metrics: the rows of metrics.csv at one state point, by step.
        kT: in Ha.
    """
    window = max(20, len(metrics) // 10)
    gap, variance = metrics[FREE_ENERGY] - metrics[OF_PSI], metrics[f"{OF_PSI}_error"] ** 2
    mean, square = (each.rolling(window, center=True, min_periods=1).mean() for each in (gap, variance))
    count = gap.rolling(window, center=True, min_periods=1).count()
    moving = mean.index[mean - 2.0 * np.sqrt(square / count) > SETTLED * kT]
    return metrics[metrics.index > moving.max()] if len(moving) else metrics


def fit_variance_line(metrics: pd.DataFrame, num_atoms: int, energy: str) -> VarianceLine:
    """The line of the longest last part of a training that is straight.

    E and the variance of E_loc are both of second order in the error of psi: E - E_0 = slope * variance / N near the
    exact psi. Steps are averaged in blocks. The slope minimises

        chi^2 = sum (E_b - E_0 - slope v_b)^2 / (error_E^2 + slope^2 error_v^2),        v = variance / N,

    over E_0 and the slope. Both errors come from the scatter of the steps within blocks. The first blocks are left out
    one by one until chi^2 is good, a parabola fits no better, and no variance is far from the smallest one. The error
    of the slope grows with a chi^2 above one.

    Args:
        metrics: the rows of metrics.csv at one state point, by step, up to the measured parameters.
        num_atoms: N.
        energy: column of E: energy_per_atom for fixed protons, free_energy_per_atom for sampled ones.

    Raises:
        ValueError: no straight part, or one that says nothing about zero variance; one line with the numbers.

    Source: Kwon, Ceperley and Martin, Phys. Rev. B 48, 12037 (1993); York et al., Am. J. Phys. 72, 367 (2004).
    """
    if metrics.empty:
        raise ValueError("no training step can be used: the flow still changed in the last step, or there is no step")
    if VARIANCE in metrics and not metrics[VARIANCE].any():
        raise ValueError("the variance of E_loc is zero: psi is exact, or each proton walker has one electron walker")
    blocks = _blocks(metrics, energy)
    if len(blocks) < LEAST_BLOCKS:
        raise ValueError(f"fewer than {LEAST_BLOCKS * LEAST_STEPS} training steps can be used")
    blocks[["variance", "variance_error"]] /= num_atoms
    lines = (_line(blocks[start:]) for start in range(len(blocks) - LEAST_BLOCKS + 1))
    line = next((line for line in lines if line.is_straight and line.lever <= FARTHEST), None)
    if line is None:
        last = _line(blocks[-LEAST_BLOCKS:])
        raise ValueError(
            f"E is not linear in the variance (chi^2 {last.chi2:.1f} per degree of freedom over the last steps)"
        )
    if line.lever < MIN_LEVER:
        raise ValueError(
            f"in the steps on a straight line the variance fell by a factor of {line.lever:.2f} only; "
            f"{MIN_LEVER:g} is needed"
        )
    if line.slope < -2.0 * line.error:
        raise ValueError(f"E rises where the variance falls: slope {line.slope:.3g} +- {line.error:.2g} per Ha")
    return line


def _blocks(metrics: pd.DataFrame, energy: str) -> pd.DataFrame:
    """Mean of E and of the variance with their errors, for blocks of steps; the first steps left over are dropped."""
    if not {energy, f"{energy}_error", VARIANCE} <= set(metrics):
        return pd.DataFrame()
    used = metrics[np.isfinite(metrics[[energy, f"{energy}_error", VARIANCE]]).all(axis=1)]
    length = max(LEAST_STEPS, math.ceil(len(used) / MOST_BLOCKS))
    count = len(used) // length
    if count < LEAST_BLOCKS:
        return pd.DataFrame()
    used = used[len(used) - count * length :]
    shape = (count, length)
    values, errors, variance = (used[name].to_numpy().reshape(shape) for name in (energy, f"{energy}_error", VARIANCE))
    mean = variance.mean(axis=1)
    # The error of a step has the right course along the training, and the scatter has the right size.
    error = np.sqrt((errors**2).mean(axis=1))
    columns = {"step": used.index.to_numpy().reshape(shape)[:, 0], "energy": values.mean(axis=1), "variance": mean}
    columns["energy_error"] = error * _scatter(values, error) / math.sqrt(length)
    columns["variance_error"] = mean * _scatter(variance, mean) / math.sqrt(length)
    return pd.DataFrame(columns)


def _scatter(values: np.ndarray, unit: np.ndarray) -> float:
    """Standard deviation of the steps around a line through each block, in the unit of each block; the typical one."""
    time = np.arange(values.shape[1]) - 0.5 * (values.shape[1] - 1)
    centred = values - values.mean(axis=1, keepdims=True)
    slope = centred @ time / (time @ time)
    squares = ((centred - slope[:, None] * time) ** 2).sum(axis=1) / unit**2
    # The median leaves out blocks with an outlier; that of chi^2 is not its mean.
    return float(np.sqrt(np.median(squares) / chi2.median(values.shape[1] - 2)))


def _line(blocks: pd.DataFrame) -> VarianceLine:
    """The line with errors in both directions."""
    x, y, x_error, y_error = (
        blocks[name].to_numpy() for name in ("variance", "energy", "variance_error", "energy_error")
    )

    def residuals(line: np.ndarray) -> np.ndarray:
        found: np.ndarray = (y - line[0] - line[1] * x) / np.hypot(y_error, line[1] * x_error)
        return found

    start = np.polyfit(x, y, 1, w=1.0 / y_error)
    found = least_squares(residuals, start[::-1], x_scale=np.abs(start[::-1]) + 1e-12)
    weights = 1.0 / np.hypot(y_error, found.x[1] * x_error)
    parabola, covariance = np.polyfit(x, y, 2, w=weights, cov="unscaled")
    bend = float(parabola[0] / math.sqrt(covariance[0, 0]))
    reduced = 2.0 * float(found.cost) / (len(x) - 2)
    error = math.sqrt(np.linalg.inv(found.jac.T @ found.jac)[1, 1] * max(1.0, reduced))
    lever = float(x.max() / x.min())
    return VarianceLine(float(found.x[1]), error, reduced, bend, len(x), int(blocks["step"].iloc[0]), lever)
