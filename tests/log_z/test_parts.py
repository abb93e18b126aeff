"""The parts of ln Z's integration: ladder of windows, swaps, equilibration, errors; and the long run."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_vfe.log_z.equilibrium import find_equilibrium
from lightning_vfe.log_z.mbar import bootstrap_error, reweight
from lightning_vfe.log_z.path import (
    coarse_points,
    coefficients,
    interval_lengths,
    spaced_points,
    with_more_points,
)
from lightning_vfe.log_z.replica_exchange import ReplicaExchange
from lightning_vfe.models.potential.yukawa import YukawaPotential
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.sampling.proposals import LangevinProposal
from lightning_vfe.sampling.random import WalkerRandom
from tests.helpers.stability import long_run


def gaussian_windows(seed: int, steps: int = 100, chains: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Exact samples of the path E/kT = s (x - 3), x normal in the window 0: that of s is normal around -s."""
    points = np.linspace(0.0, 1.0, 3)
    x = np.random.default_rng(seed).normal(-points[None, :, None], 1.0, (steps, 3, chains))
    return (x - 3.0)[..., None], points


def test_coefficients_join_the_stages() -> None:
    points = np.array([0.0, 0.25, 1.0, 1.5, 2.0])
    expected = torch.tensor([[0, 0], [0.25, 0], [1, 0], [0.5, 0.5], [0, 1]], dtype=torch.float64)
    assert torch.equal(coefficients(points), expected)
    assert coarse_points(2)[0] == 0
    assert coarse_points(2)[-1] == 2
    assert 1.0 in coarse_points(2)
    assert (np.diff(coarse_points(3)) > 0).all()


def test_windows_are_spread_evenly_over_the_thermodynamic_length() -> None:
    """sigma(s) = 10 on the first half of stage one and 2 on the rest: the half of windows lies where they matter."""
    points = np.array([0.0, 0.5, 1.0, 2.0])
    spaced = spaced_points(points, np.array([5.0, 1.0, 2.0]), 1.0, 50)
    np.testing.assert_allclose(spaced, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0, 1.5, 2.0], atol=1e-5)
    assert len(spaced_points(points, np.array([5.0, 1.0, 2.0]), 1.0, 2)) == 5
    np.testing.assert_allclose(with_more_points(points, np.array([1, 0, 3])), [0, 0.25, 0.5, 1, 1.25, 1.5, 1.75, 2])
    reduced, ladder = gaussian_windows(0, 2000, 10)
    lengths = interval_lengths(ladder, np.moveaxis(reduced, 2, 1).reshape(-1, 3, 1))
    np.testing.assert_allclose(lengths, 0.5, rtol=0.03)


def test_gaussian_windows_and_both_errors() -> None:
    """ln Z = s^2/2 + 3 s; over 25 repetitions the spread of ln Z is that of each of the three errors within 30 %."""
    values, asymptotic, ladders, bootstraps = [], [], [], []
    for seed in range(25):
        reduced, points = gaussian_windows(seed, steps=20)
        steps, c = [np.arange(20)] * 3, coefficients(points).numpy()
        found = reweight(reduced, c, steps)
        values.append(found.log_z[-1])
        asymptotic.append(found.asymptotic_error)
        ladders.append(found.ladder_error)
        if seed < 4:
            bootstraps.append(bootstrap_error(reduced, c, steps, found.log_z, 60, seed))
    spread = float(np.std(values, ddof=1))
    assert abs(np.mean(values) - 3.5) < 4 * spread / 5
    for errors in (asymptotic, ladders, bootstraps):
        assert 0.7 < np.sqrt(np.mean(np.square(errors))) / spread < 1.4
    assert bootstraps[0] == bootstrap_error(*_again(0), 60, 0), "the bootstrap repeats itself"


def _again(seed: int) -> tuple:
    reduced, points = gaussian_windows(seed, steps=20)
    steps, c = [np.arange(20)] * 3, coefficients(points).numpy()
    return reduced, c, steps, reweight(reduced, c, steps).log_z


def test_windows_far_apart_in_energy_have_a_solution() -> None:
    """A harmonic well in 162 dimensions, as for 54 atoms: neighbouring windows differ by hundreds of kT.

    E/kT = s (x^2/2 + 3000) at s: ln Z = -81 ln s - 3000 s up to a constant. The solver once hung, starting from zero.
    """
    points = np.exp(np.linspace(-2.8, 0.0, 27))
    squares = np.random.default_rng(0).chisquare(162, (40, 27, 16))
    reduced = (squares / 2.0 / points[None, :, None] + 3000.0)[..., None]
    found = reweight(reduced, points[:, None], [np.arange(40)] * 27)
    exact = -81.0 * np.log(points / points[0]) - 3000.0 * (points - points[0])
    assert abs(found.log_z[-1] - exact[-1]) < 3.0 * found.asymptotic_error
    assert found.asymptotic_error < 0.3


def test_equilibration_and_correlation_are_seen() -> None:
    """A transient of 40 sweeps is cut, an autoregressive series is thinned, a chain that sits elsewhere is reported."""
    generator = np.random.default_rng(1)
    noise = generator.normal(size=(400, 2, 8))
    series = noise.copy()
    for step in range(1, 400):
        series[step] = 0.8 * series[step - 1] + 0.6 * noise[step]
    points = np.array([0.0, 1.0])
    clean = find_equilibrium(series[..., None], points)
    assert (clean.inefficiency > 5).all()
    assert (clean.inefficiency < 15).all()
    assert (clean.r_hat < 1.05).all()
    drifting = series.copy()
    drifting[:, 1] += 20 * np.exp(-np.arange(400) / 10)[:, None]
    assert 25 <= find_equilibrium(drifting[..., None], points).start[1] <= 200
    stuck = series.copy()
    stuck[:, 0, 3] += 5
    assert find_equilibrium(stuck[..., None], points).r_hat[0] > 1.1


def test_swaps_keep_the_law_of_every_window() -> None:
    """Chains that only swap: exact samples of two windows stay so, their means within 4 errors."""
    cell, kT, count = PeriodicCell(1, 3.0), 1.0, 4000
    centre = 0.5 * cell.length

    def energy(z: Tensor) -> Tensor:
        return 0.5 * (z - centre).square().sum(dim=(-2, -1)) * 30.0

    points = np.array([0.0, 0.5, 1.0])
    generator = torch.Generator().manual_seed(3)
    # window 0.5 and 1 are Gaussians of variance 1/15 and 1/30; a window of the ideal gas is uniform
    positions = torch.stack(
        [
            cell.length * torch.rand(count, 1, 3, generator=generator),
            centre + torch.randn(count, 1, 3, generator=generator) / math.sqrt(15.0),
            centre + torch.randn(count, 1, 3, generator=generator) / math.sqrt(30.0),
        ]
    )
    random = WalkerRandom(range(3), seed=1)
    chains = ReplicaExchange([energy], cell, kT, points, positions, torch.full((3,), -20.0), LangevinProposal(), random)
    for _ in range(4):
        chains.sweep(1, adapt=False)
    assert (chains.swap_acceptance > torch.tensor([0.001, 0.3])).all()
    for window, variance in ((1, 1 / 15), (2, 1 / 30)):
        squared = (chains.positions[window] - centre).square()
        error = squared.std() / math.sqrt(squared.numel())
        assert abs(squared.mean() - variance) < 4 * error


def test_a_repulsive_potential_is_stable_and_a_hole_is_found() -> None:
    cell, kT, yukawa = PeriodicCell(4, 1.25), 0.02, YukawaPotential()
    found = long_run(lambda z: yukawa.energy(z, cell), cell, kT, num_chains=8, num_sweeps=80, num_steps=5)
    assert found.smallest_distance > 0.3
    assert abs(found.energy_drift) < 1
    assert found.r_hat < 1.2
    assert 0.3 < found.acceptance < 0.9
    assert found.lowest_energy <= found.mean_energy
    attractive = YukawaPotential(strength=0.3)
    collapsed = long_run(lambda z: -attractive.energy(z, cell), cell, kT, num_chains=8, num_sweeps=80, num_steps=5)
    assert collapsed.smallest_distance < 0.1
    assert collapsed.lowest_energy < -0.5
    with pytest.raises(FloatingPointError, match="in sweep 0"):
        long_run(lambda z: z.sum(dim=(-2, -1)) * torch.nan, cell, kT, num_sweeps=16)
