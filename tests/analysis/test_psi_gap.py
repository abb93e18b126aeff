"""The line through energy and variance along synthetic trainings."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from lightning_vfe.analysis.psi_gap import after_the_flow, fit_variance_line

NUM_ATOMS, EXACT, SLOPE = 4, -0.5, 0.6


def training(
    steps: int = 300, seed: int = 1, start: float = 2.0, end: float = 0.4, noise: float = 1.0, bend: float = 0.0
) -> pd.DataFrame:
    """E = EXACT + SLOPE v + bend v^2 per atom, v falling exponentially from start / N to end / N, with noise.

    Args:
        steps: number of steps.
        seed: of the noise.
        start: variance of the cell at the first step, Ha^2.
        end: variance of the cell at the last step, Ha^2.
        noise: scale of the errors of a step.
        bend: what makes the curve no line.
    """
    rng = np.random.default_rng(seed)
    variance = start * (end / start) ** (np.arange(steps) / (steps - 1))
    error = noise * 0.01 * np.sqrt(variance)
    per_atom = variance / NUM_ATOMS
    energy = EXACT + SLOPE * per_atom + bend * per_atom**2 + error * rng.normal(size=steps)
    noisy = variance * (1.0 + 0.05 * noise * rng.normal(size=steps))
    columns = {"energy_per_atom": energy, "energy_per_atom_error": error, "local_energy_variance": noisy}
    return pd.DataFrame(columns, index=pd.Index(range(steps), name="step"))


def test_a_line_is_found_within_its_errors() -> None:
    """Slopes of 40 trainings: no bias, an error of the right size, and a good chi^2."""
    lines = [fit_variance_line(training(seed=seed), NUM_ATOMS, "energy_per_atom") for seed in range(40)]
    pulls = np.array([(line.slope - SLOPE) / line.error for line in lines])
    assert abs(pulls.mean()) < 3.0 / math.sqrt(len(pulls))
    assert 0.6 < pulls.std() < 1.4
    assert 0.7 < np.mean([line.chi2 for line in lines]) < 1.3
    assert np.mean([line.first_step == 0 for line in lines]) > 0.7, "5 is not too far"


def test_noise_in_the_variance_does_not_flatten_the_slope() -> None:
    """Errors in both directions: an ordinary fit finds a slope that is too small."""
    rng, found, plain = np.random.default_rng(2), [], []
    for seed in range(30):
        table = training(seed=seed, start=1.0, end=0.4, noise=0.05)
        table["local_energy_variance"] *= 1.0 + 0.4 * rng.normal(size=len(table))
        blocks = table.groupby(np.arange(300) // 10).mean()
        plain.append(np.polyfit(blocks["local_energy_variance"] / NUM_ATOMS, blocks["energy_per_atom"], 1)[0])
        try:
            found.append(fit_variance_line(table, NUM_ATOMS, "energy_per_atom").slope)
        except ValueError:
            continue
    assert len(found) > 15
    assert np.mean(plain) < 0.85 * SLOPE
    assert np.mean(found) == pytest.approx(SLOPE, rel=0.1)


def test_wild_first_steps_are_left_out() -> None:
    """A curve far from the exact psi that bends, then a straight part."""
    table = training(steps=400)
    table.loc[:79, "energy_per_atom"] += 0.3 * (1.0 - np.arange(80) / 80.0)
    table.loc[:79, "local_energy_variance"] *= np.linspace(6.0, 1.0, 80)
    line = fit_variance_line(table, NUM_ATOMS, "energy_per_atom")
    assert 50 < line.first_step < 150
    assert abs(line.slope - SLOPE) < 2.5 * line.error


def test_errors_that_are_too_large_or_too_small_are_put_right_by_the_scatter() -> None:
    """Those of metrics.csv hold the spread between twists, too."""
    table = training()
    line = fit_variance_line(table, NUM_ATOMS, "energy_per_atom")
    for factor in (0.2, 5.0):
        other = table.assign(energy_per_atom_error=factor * table["energy_per_atom_error"])
        assert vars(fit_variance_line(other, NUM_ATOMS, "energy_per_atom")) == pytest.approx(vars(line), rel=1e-4)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (training().iloc[:0], "no training step can be used"),
        (training(steps=20), "fewer than 30 training steps"),
        (training().drop(columns="local_energy_variance"), "fewer than 30 training steps"),
        (training(start=0.5), "the variance fell by a factor of 1"),
        (training(noise=0.1, bend=-40.0), "the variance fell by a factor of 1|is not linear"),
        (training().assign(energy_per_atom=lambda table: -1.0 - table["energy_per_atom"]), "E rises where"),
        (training().assign(local_energy_variance=0.0), "the variance of E_loc is zero"),
    ],
)
def test_a_line_that_says_nothing_is_refused(table: pd.DataFrame, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_variance_line(table, NUM_ATOMS, "energy_per_atom")


def test_slow_waves_are_no_line() -> None:
    """Correlated over many blocks: chi^2 shows it."""
    table = training(noise=0.3)
    table["energy_per_atom"] += 0.02 * np.sin(np.arange(300) / 12.0)
    with pytest.raises(ValueError, match=r"E is not linear in the variance \(chi\^2 .* per degree of freedom"):
        fit_variance_line(table, NUM_ATOMS, "energy_per_atom")


@pytest.mark.parametrize(("noise", "first"), [(1e-4, 150), (0.05, 0)])
def test_steps_on_which_the_flow_still_moves_do_not_count(noise: float, first: int) -> None:
    """A gap that decays in 60 steps from kT is below 0.05 kT after 180 steps. In large noise it is not seen."""
    kT, steps = 0.02, np.arange(300)
    table = training()
    table = table.rename(columns=lambda name: name.replace("energy", "free_energy") if "per_atom" in name else name)
    gap = kT * np.exp(-steps / 60.0) + noise * np.random.default_rng(5).normal(size=300)
    table["free_energy_of_psi_per_atom"] = table["free_energy_per_atom"] - gap
    table["free_energy_of_psi_per_atom_error"] = noise
    used = after_the_flow(table, kT)
    assert first <= used.index[0] <= first + 50
    assert used.index[-1] == 299
