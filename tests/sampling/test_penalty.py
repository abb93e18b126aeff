"""The penalty method: detailed balance and the right distribution with noise of known and of estimated variance."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2, norm

from lightning_vfe.sampling.penalty import penalty

KNOWN = torch.tensor(math.inf, dtype=torch.float64)


def acceptance(difference: float, variance: float, lost: Any) -> Any:
    """Mean of min(1, exp(-delta - u)) over normal delta, in closed form."""
    mean, width = -difference - lost, math.sqrt(variance)
    return norm.cdf(mean / width) + np.exp(mean + 0.5 * variance) * norm.cdf(-mean / width - width)


@pytest.mark.parametrize("variance", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("difference", [0.3, 2.0])
def test_known_noise_keeps_detailed_balance(variance: float, difference: float) -> None:
    lost = float(penalty(torch.tensor(variance, dtype=torch.float64), KNOWN))
    ratio = acceptance(difference, variance, lost) / acceptance(-difference, variance, lost)
    assert math.log(ratio) == pytest.approx(-difference, abs=1e-9)
    without = acceptance(difference, variance, 0.0) / acceptance(-difference, variance, 0.0)
    assert abs(math.log(without) + difference) > 0.02 * variance * difference / (1 + variance)


@pytest.mark.parametrize(("variance", "freedom"), [(0.5, 8), (1.0, 14), (2.0, 30)])
def test_estimated_noise_keeps_detailed_balance(variance: float, freedom: int) -> None:
    """Over the distribution of the estimated variance, by quadrature; the known formula alone is off by far more."""
    difference = 1.5
    levels = (np.arange(4000) + 0.5) / 4000
    estimates = torch.from_numpy(variance * chi2.ppf(levels, freedom) / freedom)

    def error(losses: torch.Tensor) -> float:
        there, back = (acceptance(sign * difference, variance, losses.numpy()).mean() for sign in (1, -1))
        return abs(math.log(there / back) + difference)

    corrected = error(penalty(estimates, torch.full_like(estimates, freedom)))
    assert corrected < 0.002
    assert error(0.5 * estimates) > 5 * corrected


def walk(noise: float, freedom: int | None, with_penalty: bool, chains: int = 16000, steps: int = 50) -> torch.Tensor:
    """Chains on E(x)/kT = x^2/2 from its own distribution, with noisy differences; the last positions."""
    generator = torch.Generator().manual_seed(5)

    def draw() -> torch.Tensor:
        return torch.randn(chains, generator=generator, dtype=torch.float64)

    x = draw()
    for _ in range(steps):
        y = x + 1.5 * draw()
        samples = 1 if freedom is None else freedom + 1
        errors = noise * math.sqrt(samples) * torch.stack([draw() for _ in range(samples)])
        delta = 0.5 * (y.square() - x.square()) + errors.mean(0)
        chi_squared = torch.full_like(x, noise**2) if freedom is None else errors.var(0) / samples
        nu = torch.full_like(x, math.inf if freedom is None else freedom)
        lost = penalty(chi_squared, nu) if with_penalty else 0.0
        uniform = torch.rand(chains, generator=generator, dtype=torch.float64)
        x = torch.where(uniform.log() < -delta - lost, y, x)
    return x


@pytest.mark.parametrize(("noise", "freedom"), [(1.3, None), (0.8, 8)])
def test_harmonic_chains_have_the_right_width(noise: float, freedom: int | None) -> None:
    """<x^2> = 1 within 4 standard errors; without the penalty it is wrong by more than ten."""
    right, wrong = (walk(noise, freedom, with_penalty).square() for with_penalty in (True, False))
    error = math.sqrt(2.0 / len(right))
    assert abs(right.mean() - 1.0) < 4 * error
    assert abs(wrong.mean() - 1.0) > 10 * error


def test_no_noise_no_penalty() -> None:
    assert penalty(torch.zeros(3), torch.full((3,), 5.0)).abs().max() == 0
