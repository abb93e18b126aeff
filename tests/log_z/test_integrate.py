"""ln Z where it is known in closed form, and the honesty of its error and of its verdict."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_vfe.log_z import ladder_run
from lightning_vfe.log_z.integrate import integrate
from lightning_vfe.log_z.settings import LogZSettings
from lightning_vfe.physics.cell import PeriodicCell

# small and quick; each test sets what it is about
QUICK = {"num_chains": 8, "num_steps": 3, "num_sweeps": 150, "max_sweeps": 150, "pilot_sweeps": 30}


def settings(**changes: object) -> LogZSettings:
    """QUICK settings with an error that is always small enough, and changes."""
    return LogZSettings(**{**QUICK, "target_error_per_atom": 1.0, "num_bootstraps": 20, **changes})


def wells(cell: PeriodicCell, stiffness: float):
    """Independent particles in a harmonic well at the cell's centre: (..., N, 3) -> (...)."""

    def energy(z: Tensor) -> Tensor:
        return 0.5 * stiffness * (cell.wrap(z) - 0.5 * cell.length).square().sum(dim=(-2, -1))

    return energy


def test_the_ideal_gas_is_exact() -> None:
    cell = PeriodicCell(4, 1.3)
    exact = 12 * math.log(cell.length)
    assert integrate([], cell, 0.1).log_z == exact
    # a potential that is zero, and a constant one, which is a shift of -E/kT
    for shift in (0.0, 0.37):
        found = integrate([lambda z, shift=shift: 0.0 * z.sum(dim=(-2, -1)) + shift], cell, 0.1, settings())
        assert abs(found.log_z - (exact - shift / 0.1)) < 1e-9
        assert found.log_z_error < 1e-9
        assert found.converged
        assert len(found.windows) == 2


@pytest.mark.parametrize(("proposal", "num_steps"), [("langevin", 3), ("gaussian", 12)])
def test_harmonic_wells(proposal: str, num_steps: int) -> None:
    """ln Z = 3N/2 ln(2 pi kT/k): by either rule within 3 errors, which are a tenth of kT or less."""
    cell, kT, stiffness = PeriodicCell(3, 4.0), 0.5, 2.0
    exact = 4.5 * math.log(2 * math.pi * kT / stiffness)
    found = integrate([wells(cell, stiffness)], cell, kT, settings(proposal=proposal, num_steps=num_steps))
    assert found.converged, found.reasons
    assert 0.005 < found.log_z_error < 0.15
    assert abs(found.log_z - exact) < 3 * found.log_z_error
    overlaps = [window.overlap_with_next for window in found.windows[:-1]]
    assert min(overlaps) > 0.1
    assert np.allclose(found.overlap.sum(axis=1), 1, atol=1e-6)
    assert found.positions is not None
    assert found.positions.shape == (8, 3, 3)


def test_two_stages_add_up() -> None:
    """Through a soft well to a stiff one: the detour does not show, and the first stage ends at its own ln Z."""
    cell, kT = PeriodicCell(2, 4.0), 0.5
    energies = [wells(cell, 0.5), wells(cell, 2.0)]
    found = integrate(energies, cell, kT, settings(seed=1))
    (soft,) = [window for window in found.windows if window.point == 1.0]
    for stiffness, log_z in ((0.5, soft.log_z), (2.0, found.log_z)):
        assert abs(log_z - 3 * math.log(2 * math.pi * kT / stiffness)) < 3 * found.log_z_error


def test_the_error_is_the_spread_over_seeds() -> None:
    """chi^2 of 10 independent runs per degree of freedom is one, within the 99.8 % interval (0.15 to 2.9)."""
    cell, kT, stiffness = PeriodicCell(1, 2.0), 0.5, 4.0
    exact = 1.5 * math.log(2 * math.pi * kT / stiffness)
    short = {"num_sweeps": 60, "max_sweeps": 60, "pilot_sweeps": 15}
    runs = [integrate([wells(cell, stiffness)], cell, kT, settings(seed=seed, **short)) for seed in range(10)]
    squares = [((run.log_z - exact) / run.log_z_error) ** 2 for run in runs]
    assert 0.15 < sum(squares) / 10 < 2.9, squares


def test_more_sweeps_follow_until_the_error_is_small_enough() -> None:
    cell = PeriodicCell(1, 2.0)
    longer = settings(num_sweeps=40, max_sweeps=2000, target_error_per_atom=0.03)
    found = integrate([wells(cell, 4.0)], cell, 0.5, longer)
    assert found.converged
    assert found.log_z_error < 0.03
    short = settings(num_sweeps=40, max_sweeps=40, target_error_per_atom=0.03)
    hurried = integrate([wells(cell, 4.0)], cell, 0.5, short)
    assert not hurried.converged
    assert "exceeds the target 0.03" in hurried.reasons[-1]


def test_windows_are_added_where_neighbours_overlap_too_little() -> None:
    """A pilot that may place one interval only leaves a gap; bisection closes it."""
    cell, kT, stiffness = PeriodicCell(1, 3.0), 0.5, 40.0
    found = integrate([wells(cell, stiffness)], cell, kT, settings(max_windows_per_stage=1))
    assert len(found.windows) > 3, found.reasons
    assert found.converged, found.reasons
    assert abs(found.log_z - 1.5 * math.log(2 * math.pi * kT / stiffness)) < 3 * found.log_z_error


def test_a_gap_that_stays_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ladder_run, "_MOST_INSERTIONS", 0)
    with pytest.raises(FloatingPointError, match="have nothing in common after adding windows 0 times"):
        integrate([wells(PeriodicCell(2, 3.0), 1e4)], PeriodicCell(2, 3.0), 0.5, settings(max_windows_per_stage=1))


def test_a_result_repeats_itself() -> None:
    cell = PeriodicCell(1, 2.0)
    short = settings(num_sweeps=30, max_sweeps=30, pilot_sweeps=10, seed=5)
    first, second = (integrate([wells(cell, 4.0)], cell, 0.5, short) for _ in range(2))
    assert first.log_z == second.log_z
    assert first.log_z_error == second.log_z_error


def test_energies_that_are_not_numbers_are_refused() -> None:
    cell = PeriodicCell(2, 2.0)
    with pytest.raises(FloatingPointError, match="ln Z does not exist"):
        integrate([lambda z: z.sum(dim=(-2, -1)) * torch.nan], cell, 0.5, settings())
    with pytest.raises(ValueError, match="kT = 0"):
        integrate([wells(cell, 1.0)], cell, 0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_chains": 1}, "num_chains = 1"),
        ({"max_sweeps": 10}, "max_sweeps = 10"),
        ({"target_error_per_atom": 0.0}, "target_error_per_atom = 0.0"),
        ({"min_overlap": 0.6}, "min_overlap = 0.6"),
        ({"proposal": "walk"}, "proposal = walk"),
        ({"seed": -1}, "seed = -1"),
    ],
)
def test_settings_out_of_range(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**change)
