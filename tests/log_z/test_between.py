"""States that are added where neighbours on the path overlap too little."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from lightning_vfe.errors import SettingError
from lightning_vfe.log_z.between import TargetPath, neighbour_overlaps, overlap_of_pair
from lightning_vfe.log_z.integrate import integrate, integrate_path
from lightning_vfe.log_z.settings import LogZSettings
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.workflows.log_z_route import halfway

SETTINGS = LogZSettings(
    num_chains=6,
    num_steps=3,
    num_sweeps=40,
    max_sweeps=40,
    pilot_sweeps=15,
    target_error_per_atom=1.0,
    num_bootstraps=20,
    min_overlap=0.1,
    seed=2,
)


@pytest.mark.parametrize("distance", [0.5, 2.0, 4.0])
def test_overlap_of_gaussians_is_that_of_quadrature(distance: float) -> None:
    """D is normal around -+ d^2/2 with the width d, as it is for two Gaussians of one variance."""
    random = np.random.default_rng(1)
    low, high = (sign * distance**2 / 2 + distance * random.normal(size=20_000) for sign in (1.0, -1.0))
    pair = norm(0.0, 1.0), norm(distance, 1.0)
    exact = quad(lambda x: math.prod(p.pdf(x) for p in pair) / sum(p.pdf(x) for p in pair), -8.0, distance + 8.0)[0]
    # a shift of D by ln Z changes nothing
    assert overlap_of_pair(low + 7.0, high + 7.0) == pytest.approx(exact, rel=0.05)


def test_states_without_overlap() -> None:
    assert overlap_of_pair(np.full(10, 50.0), np.full(10, -50.0)) < 1e-10
    assert overlap_of_pair(np.zeros(10), np.zeros(10)) == pytest.approx(0.5)


def test_states_are_added_until_neighbours_overlap() -> None:
    """Wells with stiffness 2 and 200: each ln Z is exact within 3 errors, and the added states overlap."""
    cell, stiffnesses = PeriodicCell(1, 4.0), [2.0, 200.0]
    seen: list[float] = []

    def energy(z: torch.Tensor) -> torch.Tensor:
        return 0.5 * (cell.wrap(z) - 0.5 * cell.length).square().sum(dim=(-2, -1))

    def path() -> TargetPath:
        stages = torch.tensor(stiffnesses, dtype=torch.float64)[:, None]
        return [energy], stages, list(range(1, len(stiffnesses) + 1))

    def between(numbers, overlaps) -> TargetPath:
        seen.extend(overlaps)
        for k in sorted(numbers, reverse=True):
            stiffnesses.insert(k + 1, math.sqrt(stiffnesses[k] * stiffnesses[k + 1]))
        return path()

    found = integrate_path(*path(), cell, 1.0, SETTINGS, between=between)
    assert len(stiffnesses) >= 3
    assert len(found.log_z) == len(stiffnesses)
    assert seen
    assert max(seen) < SETTINGS.min_overlap
    for stiffness, log_z, error in zip(stiffnesses, found.log_z, found.errors, strict=True):
        assert abs(log_z - 1.5 * math.log(2 * math.pi / stiffness)) < 3 * error + 1e-3
    # with a threshold that all pass, nothing is added
    stiffnesses, seen = [2.0, 3.0], []
    assert len(integrate_path(*path(), cell, 1.0, replace(SETTINGS, min_overlap=0.05), between=between).log_z) == 2
    assert not seen


def test_the_largest_threshold_adds_few_windows() -> None:
    """Windows that are close have a large overlap, so that windows and states are added only until it is reached."""
    cell = PeriodicCell(1, 4.0)

    def energy(z: torch.Tensor) -> torch.Tensor:
        return 50.0 * (cell.wrap(z) - 0.5 * cell.length).square().sum(dim=(-2, -1))

    numbers = []
    for threshold in (0.01, 0.2):
        short = replace(SETTINGS, num_steps=2, min_overlap=threshold, spacing=0.7)
        found = integrate([energy], cell, 1.0, short)
        numbers.append(len(found.windows))
        assert not [reason for reason in found.reasons if "overlap" in reason]
    assert min(window.overlap_with_next for window in found.windows[:-1]) > 0.2
    assert numbers[1] <= numbers[0] + 1
    with pytest.raises(SettingError, match=r"from 0\.01 to 0\.2: equal distributions overlap by 0\.5"):
        replace(SETTINGS, min_overlap=0.3)


@pytest.mark.parametrize("distance", [0.5, 1.0, 2.0])
def test_overlap_of_a_dense_ladder(distance: float) -> None:
    """Of harmonic windows shifted by as many standard deviations; windows around them change nothing."""
    random = np.random.default_rng(5)
    centres = distance * np.arange(6)
    x = centres[:, None] + random.normal(size=(4000, 6, 1))
    # (x - a)^2 / 2 = x^2/2 - a x + a^2/2, from the energies x and 1
    samples = np.stack([x, np.ones_like(x)], axis=-1)  # (steps, K, C, S)
    coefficients = np.stack([-centres, 0.5 * centres**2], axis=1)
    pair = norm(0.0, 1.0), norm(distance, 1.0)
    exact = quad(lambda x: math.prod(p.pdf(x) for p in pair) / sum(p.pdf(x) for p in pair), -8.0, distance + 8.0)[0]
    assert neighbour_overlaps(samples, coefficients, range(6)) == pytest.approx(np.full(5, exact), rel=0.05)


def test_halfway_is_the_geometric_mean() -> None:
    assert halfway(StatePoint(1.0, 4000.0), StatePoint(4.0, 9000.0)) == StatePoint(2.0, 6000.0)
    assert halfway(StatePoint(1.123456789, 4000.0), StatePoint(1.123456789, 9000.0)).rs == 1.123456789
