"""Whether a training is finished: series with known slopes, noise and correlations."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lightning_vfe.analysis.psi_gap import FREE_ENERGY, VARIANCE
from lightning_vfe.analysis.states import State
from lightning_vfe.analysis.training_verdict import Measured, Virial, judge_training, last_quarter, training_line

STATE = State(2.0, 6000.0)


def correlated(random: np.random.Generator, steps: int, memory: float) -> np.ndarray:
    """Noise of unit variance whose value at one step keeps a fraction of that before."""
    noise = random.standard_normal(steps)
    for step in range(1, steps):
        noise[step] = memory * noise[step - 1] + math.sqrt(1 - memory**2) * noise[step]
    return noise


@pytest.mark.parametrize("memory", [0.0, 0.7])
def test_the_slope_has_its_error(memory: float) -> None:
    """Over many trainings, the deviations in units of the error are those of a normal distribution."""
    random, steps, slope = np.random.default_rng(3), 1600, -0.002
    pulls, alarms = [], 0
    for _ in range(300):
        noise = correlated(random, steps, memory)
        trend = last_quarter(pd.Series(slope * np.arange(steps) + noise))
        pulls.append((trend.slope - slope) / trend.error)
        alarms += last_quarter(pd.Series(noise)).is_significant
    # 300 repeats know the mean to 0.06 and the spread to 0.04
    assert abs(np.mean(pulls)) < 0.2
    assert 0.8 < np.std(pulls) < 1.2
    assert alarms <= 12, "about 3 of 300 by chance"


def test_an_exact_line_and_steps_that_broke() -> None:
    values = pd.Series(5.0 - 0.5 * np.arange(400))
    values[390] = math.nan
    trend = last_quarter(values.drop(390))
    assert trend.num_steps == 99
    assert last_quarter(values).mean == trend.mean
    exact = last_quarter(values[values.index < 390])
    assert exact.slope == pytest.approx(-0.5, rel=1e-12)
    assert exact.change == pytest.approx(-0.5 * 97, rel=1e-12)


def run_of(folder: Path, free_energy: np.ndarray, variance: np.ndarray) -> Path:
    """A run folder with the curves of a training."""
    columns = {"step": np.arange(len(free_energy)), FREE_ENERGY: free_energy, VARIANCE: variance}
    pd.DataFrame(columns).to_csv(folder / "metrics.csv", index=False)
    return folder


def judged(
    folder: Path, last_step: int = 10_000, error: float = 1e-3, steepness: float | None = None, virial=None
) -> dict:
    measured = Measured(error, virial, steepness)
    return judge_training(folder, last_step, {STATE: measured}, several=False, num_atoms=2)


def test_verdicts(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    steps = np.arange(400)
    noise, flat = 1e-3 * random.standard_normal(400), 0.2 + 0.01 * random.standard_normal(400)
    still = judged(run_of(tmp_path, noise - 1.0, flat))
    assert still["ok"] is True
    assert still["reasons"] == []
    assert still["variance_per_atom"]["value"] == pytest.approx(0.1, rel=0.01)
    assert still["variance_per_atom"]["unit"] == "Ha^2/atom"
    assert "converged; F changed by" in training_line(still)
    falling = judged(run_of(tmp_path, noise - 1e-4 * steps, flat))
    assert falling["ok"] is False
    (reason,) = falling["reasons"]
    fall = re.match(r"F fell by ([\d.]+)\((\d+)\) Ha/atom ", reason)
    assert fall is not None
    assert float(fall[1]) == pytest.approx(1e-4 * 100, abs=3e-5 * int(fall[2]))
    assert "in the last 100 steps; resume with fit ckpt_path=last" in reason
    assert judged(tmp_path, error=0.1)["ok"] is True, "a fall below the error of F does not count"
    assert "F rose by" in judged(run_of(tmp_path, noise + 1e-4 * steps, flat))["reasons"][0]
    shrinking = judged(run_of(tmp_path, noise, flat * np.exp(-0.003 * steps)))
    assert shrinking["reasons"][0].startswith("the variance of E_loc fell by 3")
    # a fall of 0.01 Ha^2 per atom matters only if it changes F by more than its error
    assert judged(tmp_path, error=1e-2)["ok"] is True
    assert judged(tmp_path, error=1e-3, steepness=0.01)["ok"] is True
    assert judged(tmp_path, error=1e-3, steepness=0.4)["ok"] is False
    assert judged(run_of(tmp_path, np.where(steps < 200, noise - 1e-4 * steps, -1.0), flat))["ok"] is True


def test_what_is_not_known(tmp_path: Path) -> None:
    """No curves, too few steps, or no column: neither good nor bad."""
    assert judged(tmp_path) == {"ok": None, "reasons": ["the run folder holds no metrics.csv of the training"]}
    run_of(tmp_path, np.zeros(400), np.ones(400))
    assert judged(tmp_path, last_step=79)["reasons"] == ["79 training steps can be used, and 80 are needed"]
    assert training_line(judged(tmp_path, last_step=79)).startswith("training not judged: 79 training steps")
    pd.DataFrame({"step": range(400), FREE_ENERGY: 0.0}).to_csv(tmp_path / "metrics.csv", index=False)
    assert judged(tmp_path)["reasons"][0].endswith(f"has no column {VARIANCE}")


def test_the_virial_pressure_counts(tmp_path: Path) -> None:
    random = np.random.default_rng(6)
    noise, flat = 1e-3 * random.standard_normal(400), 0.2 + 0.01 * random.standard_normal(400)
    folder = run_of(tmp_path, noise - 1.0, flat)

    def with_virial(*numbers: float, run: Path = folder) -> dict:
        return judged(run, virial=Virial(*numbers))

    for fine in ((0.3, 0.1, 0.2), (0.5, 0.1, 0.6), (-0.5, 0.1, 0.6)):
        verdict = with_virial(*fine)
        assert verdict["ok"] is True, fine
        assert verdict["virial_excess"] == {"value": fine[0], "error": fine[1], "unit": "GPa"}
    wrong = with_virial(-5.2, 0.3, 1.0)
    assert wrong["ok"] is False
    (reason,) = wrong["reasons"]
    assert reason.startswith("the virial pressure lies 5.20(30) GPa below -dE/dV of this psi")
    # what is known to be wrong counts without a training that can be judged
    unknown = with_virial(-5.2, 0.3, 1.0, run=tmp_path / "none")
    assert unknown["ok"] is False
    assert "no metrics.csv" in unknown["reasons"][-1]
    assert with_virial(0.1, 0.3, 1.0, run=tmp_path / "none")["ok"] is None
