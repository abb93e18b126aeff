"""State points times twists: their order, how walkers are dealt to them, weighted estimates, and bad input."""

import math
import re

import numpy as np
import pytest
import torch

from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.statistics import estimate
from lightning_vfe.physics.strata import Strata, reference_point
from lightning_vfe.physics.twists import twist_grid
from lightning_vfe.physics.units import KELVIN_TO_HARTREE

WEIGHTED = [[0.0, 0.0, 0.0, 1.0], [0.25, 0.1, -0.3, 2.0], [0.5, 0.5, 0.5, 5.0]]
"""Three twists with the weights 1/8, 2/8 and 5/8."""
TWO_BY_TWO = {"rs": [1.2, 1.4], "temperature_kelvin": [4000, 8000]}


def _points(**keys):
    return [(point.rs, point.temperature_kelvin) for point in Strata.of(**keys).points]


# --- state points ---------------------------------------------------------------------------------------------------


def test_every_pair_of_the_lists_is_a_state_point_temperatures_first():
    assert _points(rs=1.31, temperature_kelvin=6000) == [(1.31, 6000.0)]
    assert _points(**TWO_BY_TWO) == [(1.2, 4000.0), (1.2, 8000.0), (1.4, 4000.0), (1.4, 8000.0)]
    assert _points(rs=(2, 1.5), temperature_kelvin=300.0) == [(2.0, 300.0), (1.5, 300.0)]  # the order of the list
    assert _points() == [(1.25, 6000.0)]


def test_pairs_are_taken_as_they_are():
    pairs = [[1.4, 6000], [1.2, 4000.0], (1.4, 300)]
    assert _points(rs=9.0, temperature_kelvin=9.0, states=pairs) == [(1.4, 6000.0), (1.2, 4000.0), (1.4, 300.0)]


def test_fixed_protons_have_no_temperature():
    assert _points(rs=[1.2, 1.4], temperature_kelvin=6000, protons="fixed") == [(1.2, 0.0), (1.4, 0.0)]
    assert _points(rs=1.2, temperature_kelvin=0, protons="fixed") == [(1.2, 0.0)]
    assert _points(states=[[1.2, 6000], [1.4, 4000]], protons="fixed") == [(1.2, 0.0), (1.4, 0.0)]


@pytest.mark.parametrize("point", [(1.31, 6000.0), (0.1, 0.3e5), (1.1, 12345.678), (1.25, 7.0)])
def test_reference_of_one_state_is_that_state(point):
    """Exactly: the conditions of the flow must be zero there."""
    strata = Strata((StatePoint(*point),), twist_grid([1, 1, 1]))
    assert strata.reference == strata.single == StatePoint(*point)
    assert strata.reference.rs == point[0]
    assert strata.reference.kT == strata.points[0].kT
    assert reference_point(strata) == strata.reference


def test_reference_of_several_states_lies_in_the_middle():
    strata = Strata.of(states=[[1.0, 3000], [1.1, 9000], [2.0, 4000]])
    assert strata.reference == StatePoint(1.5, 6000.0)
    with pytest.raises(ValueError, match=r"^rs = \[.*\] has several state points; give one$"):
        strata.single  # noqa: B018


# --- strata and walkers ---------------------------------------------------------------------------------------------


def test_stratum_counts_twists_first():
    strata = Strata.of(**TWO_BY_TWO, twists=WEIGHTED)
    assert len(strata) == 12
    assert strata.num_states == 4
    stratum = torch.arange(12)
    assert strata.state_index(stratum).tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    torch.testing.assert_close(strata.weights(stratum), torch.tensor([0.125, 0.25, 0.625] * 4))
    states = strata.walker_states(stratum, like=torch.empty(0))
    torch.testing.assert_close(states.rs, torch.tensor([1.2] * 6 + [1.4] * 6))
    kelvin = torch.tensor([4000.0] * 3 + [8000.0] * 3).repeat(2)
    torch.testing.assert_close(states.kT, KELVIN_TO_HARTREE * kelvin, rtol=1e-15, atol=0)
    assert torch.equal(states.twist, torch.tensor(WEIGHTED)[:, :3].repeat(4, 1))
    mixed = torch.tensor([7, 0, 7])
    assert torch.equal(strata.walker_states(mixed, like=torch.empty(0)).twist, states.twist[mixed])
    narrow = strata.walker_states(mixed, like=torch.empty(0, dtype=torch.float32))
    assert narrow.rs.dtype == narrow.kT.dtype == narrow.twist.dtype == torch.float32


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 6])
def test_walker_w_has_stratum_w_modulo_their_number(num_ranks):
    """Whichever process owns which groups, also in another order."""
    strata, num_walkers, num_groups = Strata.of(**TWO_BY_TWO, twists=WEIGHTED), 48, 6
    expected = torch.arange(num_walkers) % 12
    share = num_groups // num_ranks
    parts = [range(rank * share, (rank + 1) * share) for rank in range(num_ranks)]
    dealt = [strata.deal(num_walkers // num_ranks, groups, num_groups) for groups in parts]
    assert torch.equal(torch.cat(dealt), expected)
    assert dealt[0].dtype == torch.int64
    of_groups = expected.view(num_groups, -1)
    assert torch.equal(strata.deal(16, [5, 2], num_groups), of_groups[[5, 2]].flatten())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (TWO_BY_TWO, "= 18 must be a multiple of the 4 state points times 1 twists of system.twists; set it to 20"),
        ({"twists": [2, 2, 2]}, "= 18 must be a multiple of the 8 twists of system.twists; set it to 24"),
    ],
)
def test_walkers_that_do_not_divide_are_refused(keys, message):
    with pytest.raises(ValueError, match=f"^num_proton_walkers {message}$"):
        Strata.of(**keys).deal(6, [0, 2], 6)


def test_groups_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"^walker groups = \[1, 2\] must be below num_groups = 2$"):
        Strata.of().deal(4, [1, 2], 2)


def test_random_twists_are_one_stratum_for_each_state():
    strata = Strata.of(**TWO_BY_TWO, twists="random")
    assert len(strata) == 4
    assert strata.twists.is_random
    assert torch.equal(strata.weights(torch.arange(4)), torch.ones(4, dtype=torch.float64))


# --- estimates ------------------------------------------------------------------------------------------------------


def test_estimate_is_the_weighted_average_over_the_twists_of_each_state():
    """Two chains in each stratum; states and twists have different means, which are no error."""
    strata = Strata.of(**TWO_BY_TWO, twists=WEIGHTED)
    stratum = strata.deal(24, [0], 1)
    means = 100.0 * strata.state_index(stratum) + 10.0 * (stratum % 3)
    series = means + torch.randn(400, 24)
    found = strata.estimate(series, stratum)
    assert len(found) == 4
    for number, result in enumerate(found):
        own = strata.state_index(stratum) == number
        by_twist = series[:, own].mean(0).view(2, 3).mean(0)
        expected = (torch.tensor([1.0, 2.0, 5.0]) / 8.0 * by_twist).sum().item()
        assert result.value == pytest.approx(expected, abs=1e-10)
        assert abs(result.value - (100.0 * number + 10.0 * (2.0 + 10.0) / 8.0)) < 5.0 * result.error
        assert 0.5 < result.error / math.sqrt((1 + 4 + 25) / 64 / 2 / 400) < 3.0
        weights = strata.weights(stratum[own])
        np.testing.assert_array_equal(result, estimate(series[:, own], stratum[own], weights))


def test_estimate_does_not_depend_on_the_order_of_the_chains():
    strata = Strata.of(**TWO_BY_TWO, twists=WEIGHTED)
    stratum, series, order = strata.deal(24, [0], 1), torch.randn(50, 24), torch.randperm(24)
    shuffled = strata.estimate(series[:, order], stratum[order])
    for one, other in zip(strata.estimate(series, stratum), shuffled, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-9)


# --- bad input ------------------------------------------------------------------------------------------------------

REFUSED = [
    ({"rs": []}, "rs = [] must be a number, or a list of numbers"),
    ({"rs": "1.25"}, "rs = 1.25 must be a number"),
    ({"rs": None}, "rs = null must be a number"),
    ({"rs": [1.2, True]}, "rs = [1.2, True] must be a number"),
    ({"rs": [1.2, -1.0]}, "rs = -1.0 must be positive"),
    ({"rs": [[1.2], [1.3]]}, "rs = [[1.2], [1.3]] must be a number"),
    ({"temperature_kelvin": []}, "temperature_kelvin = [] must be a number"),
    ({"temperature_kelvin": ["hot"]}, "temperature_kelvin = ['hot'] must be a number"),
    ({"temperature_kelvin": 0.0}, "temperature_kelvin = 0.0 must be positive and finite"),
    ({"temperature_kelvin": [6000, -5]}, "temperature_kelvin = -5 must be positive and finite"),
    ({"temperature_kelvin": math.nan}, "temperature_kelvin = nan must be positive and finite"),
    ({"states": []}, "states = [] holds no state point"),
    ({"states": "1.2,6000"}, "states = 1.2,6000 must be a list of pairs [rs, T]"),
    ({"states": [1.2, 6000]}, "states = [1.2, 6000]: 1.2 is no pair [rs, T]"),
    ({"states": [[1.2, 6000, 1]]}, "states = [[1.2, 6000, 1]]: [1.2, 6000, 1] is no pair [rs, T]"),
    ({"states": [[1.2, 6000], [1.3]]}, "states = [[1.2, 6000], [1.3]]: [1.3] is no pair [rs, T]"),
    ({"states": ["ab"]}, "states = ['ab']: 'ab' is no pair [rs, T]"),
    ({"states": [[1.2, "hot"]]}, "states = [[1.2, 'hot']]: [1.2, 'hot'] is no pair of numbers [rs, T]"),
    ({"states": [[1.2, 0]]}, "temperature_kelvin = 0 must be positive and finite"),
    ({"states": [[0.0, 6000]]}, "rs = 0.0 must be positive"),
    (
        {"states": [[1.2, 6000], [1.3, 6000], [1.2, 6000.0]]},
        "states = [rs = 1.2, T = 6000 K, rs = 1.3, T = 6000 K, rs = 1.2, T = 6000 K] holds rs = 1.2, T = 6000 K twice",
    ),
    ({"states": [[1.2, 6000], [1.2, 4000]], "protons": "fixed"}, "states = [rs = 1.2, rs = 1.2] holds rs = 1.2 twice"),
    ({"rs": [1.2, 1.2]}, "rs = [1.2, 1.2] holds 1.2 twice"),
    ({"rs": [1.0 + 0.001 * i for i in range(1001)]}, "states = 1001 state points are too many; give at most 1000"),
    ({"temperature_kelvin": [4000, 6000], "protons": "fixed"}, "temperature_kelvin = [4000, 6000] but"),
    ({"protons": "free"}, "protons = free is unknown; choose sampled, fixed, none"),
    ({"twists": [0, 1]}, "twists = [0, 1] is no grid"),
    ({"twist_symmetry": "hexagonal"}, "twist_symmetry = hexagonal is unknown"),
]


@pytest.mark.parametrize(("keys", "message"), REFUSED)
def test_bad_input_is_one_line_that_names_the_key(keys, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}") as error:
        Strata.of(**keys)
    assert "\n" not in str(error.value)
