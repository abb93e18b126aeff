"""One state point as plain numbers, those of walkers as tensors, and bad input."""

import math

import pytest
import torch
from scipy import constants

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.state_point import StatePoint, WalkerStates


def test_state_point():
    point = StatePoint(1.31, 6000.0)
    assert point.kT == pytest.approx(constants.k * 6000.0 / constants.value("Hartree energy"), rel=1e-10)
    assert point.cell(14) == PeriodicCell(14, 1.31)
    assert str(point) == "rs = 1.31, T = 6000 K"
    assert point == StatePoint(1.31, 6000)
    assert point < StatePoint(1.31, 7000.0) < StatePoint(1.4, 100.0)


def test_ground_state_has_no_temperature():
    point = StatePoint(2.0)
    assert point.kT == 0.0
    assert str(point) == "rs = 2"


@pytest.mark.parametrize("rs", [0.0, -1.25, math.nan, math.inf, "1.25", None, True, [1.25]])
def test_impossible_densities_are_refused(rs):
    with pytest.raises(ValueError, match=r"^rs = .* must be positive") as error:
        StatePoint(rs, 6000.0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kelvin", [math.nan, math.inf, "6000", None, False, [6000.0]])
def test_what_is_no_temperature_is_refused(kelvin):
    with pytest.raises(ValueError, match=r"^temperature_kelvin = .* must be a finite number") as error:
        StatePoint(1.25, kelvin)
    assert "\n" not in str(error.value)


def _states(*leading):
    """Different numbers everywhere."""
    count = math.prod(leading)
    rs, kT = 1.0 + torch.arange(count) / 10.0, 0.02 + torch.arange(count) / 1000.0
    twist = torch.arange(3.0 * count) / (6.0 * count)
    return WalkerStates(rs.view(leading), kT.view(leading), twist.view(*leading, 3))


def _same(one, other):
    assert torch.equal(one.rs, other.rs)
    assert torch.equal(one.kT, other.kT)
    assert torch.equal(one.twist, other.twist)


def test_one_state_point_for_all_walkers():
    twists = [[0.0, 0.0, 0.0], [0.25, 0.1, -0.3]]
    states = WalkerStates.at(1.31, 6000.0, twists)
    assert len(states) == 2
    assert states.shape == (2,)
    assert torch.equal(states.rs, torch.full((2,), 1.31))
    assert torch.equal(states.kT, torch.full((2,), StatePoint(1.31, 6000.0).kT))
    assert torch.equal(states.twist, torch.tensor(twists))
    single = WalkerStates.at(1.31)
    assert single.shape == ()
    assert single.kT == 0.0
    assert torch.equal(single.twist, torch.zeros(3))
    narrow = WalkerStates.at(1.31, 6000.0, torch.zeros(4, 3), like=torch.empty(0, dtype=torch.float32))
    assert {narrow.rs.dtype, narrow.kT.dtype, narrow.twist.dtype} == {torch.float32}
    assert narrow.shape == (4,)


def test_fields_are_indexed_and_shaped_together():
    states = _states(6)
    for index in (2, slice(1, 4), torch.tensor([5, 0, 0]), torch.arange(6) % 2 == 0):
        _same(states[index], WalkerStates(states.rs[index], states.kT[index], states.twist[index]))
    grid = _states(2, 3)
    _same(grid[1, 2], states[5])
    _same(grid.flatten(), states)
    assert grid.unsqueeze(1).shape == (2, 1, 3)
    assert grid.unsqueeze(1).twist.shape == (2, 1, 3, 3)
    assert states.unsqueeze(1).expand(6, 4).twist.shape == (6, 4, 3)
    _same(states.unsqueeze(1).expand(6, 4)[:, 2], states)
    assert [len(part) for part in states.split(4)] == [4, 2]
    _same(states.split(4)[1], states[4:])
    assert states.to(torch.float32).twist.dtype == torch.float32
    assert states.to(torch.float32).rs.dtype == torch.float32
