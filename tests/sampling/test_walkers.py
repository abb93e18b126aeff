"""Walkers: start, strata, saving, picking groups out of a saved state, and fields that a new move would add."""

import io

import pytest
import torch

from lightning_vfe.physics.state_point import StatePoint, WalkerStates
from lightning_vfe.physics.strata import Strata
from lightning_vfe.physics.system import System
from lightning_vfe.physics.twists import twist_grid
from lightning_vfe.sampling.nested import NestedSampler
from lightning_vfe.sampling.random import WalkerRandom
from lightning_vfe.sampling.walkers import initial_electrons, merge_walker_states

SYSTEM = System(num_atoms=4)
CELL = SYSTEM.cell
TWISTS = [[0.0, 0.0, 0.0], [0.25, 0.5, -0.25]]


def strata_of(twists=TWISTS, densities=(2.0,)):
    return Strata(tuple(StatePoint(rs, 6000.0) for rs in densities), twist_grid(twists))


def make_walkers(groups, num_groups=4, twists=TWISTS, num_electron_walkers=3, densities=(2.0,)):
    random, strata = WalkerRandom(groups, seed=5), strata_of(twists, densities)
    protons = random.uniform((2 * len(groups), 4, 3)) * CELL.length
    stratum = strata.deal(len(protons), groups, num_groups)
    states = strata.walker_states(stratum, like=protons)
    return NestedSampler(SYSTEM).start(protons, states, stratum, num_electron_walkers, random)


def test_each_proton_gets_one_electron_and_spins_are_shuffled():
    random = WalkerRandom(range(2), seed=0)
    protons = random.uniform((30, 4, 3)) * CELL.length
    electrons = initial_electrons(protons, 5, random, CELL, cloud_width=torch.zeros(30))
    assert electrons.shape == (30, 5, 4, 3)
    distance = CELL.minimum_image(electrons[:, :, :, None] - protons[:, None, None]).norm(dim=-1)  # (W, B, N, N)
    host = distance.argmin(dim=-1)
    assert distance.min(dim=-1).values.max() < 1e-12
    assert torch.equal(host.sort(dim=-1).values, torch.arange(4).expand(30, 5, 4))
    # Electron 0 (up) sits on each proton equally often: 150 draws, probability 1/4.
    share = torch.bincount(host[..., 0].flatten(), minlength=4) / 150
    assert (share - 0.25).abs().max() < 4 * (0.25 * 0.75 / 150) ** 0.5


def test_clouds_have_their_width_and_lie_in_the_cell():
    """1 bohr at every density."""
    system, count = System(num_atoms=2), 2000
    rs = torch.tensor([20.0, 10.0]).repeat(count)
    states = WalkerStates(rs, torch.zeros(2 * count), torch.zeros(2 * count, 3))
    stratum, random = torch.zeros(2 * count, dtype=torch.int64), WalkerRandom(range(1), seed=0)
    walkers = NestedSampler(system).start(torch.zeros(2 * count, 2, 3), states, stratum, 1, random)
    assert walkers.electrons.min() >= 0
    assert walkers.electrons.max() < system.cell.length
    bohr = rs[:, None, None, None] * system.cell.minimum_image(walkers.electrons)
    for density in (20.0, 10.0):
        assert abs(bohr[rs == density].var() - 1) < 4 * (2 / 12_000) ** 0.5


def test_twists_go_round_over_the_walkers_of_the_whole_run():
    three, four = strata_of([3, 1, 1]), strata_of([2, 2, 1])
    assert three.deal(6, [0, 1], 2).tolist() == [0, 1, 2, 0, 1, 2]
    assert three.deal(2, [1], 3).tolist() == [2, 0]
    whole = four.deal(8, range(4), 4)
    assert torch.equal(whole, torch.cat([four.deal(4, [0, 1], 4), four.deal(4, [2, 3], 4)]))
    walkers = make_walkers([2, 3])
    assert torch.equal(walkers["twist"], torch.tensor(TWISTS)[[0, 1, 0, 1]])


def test_walkers_of_several_densities_keep_their_states():
    """Stratum t + T s: both twists of the first density, then both of the second."""
    walkers = make_walkers(range(4), densities=(1.5, 2.0))
    assert walkers["stratum"].tolist() == 2 * [0, 1, 2, 3]
    assert len(walkers) == 8
    assert walkers.states.rs.tolist() == 2 * [1.5, 1.5, 2.0, 2.0]
    assert torch.equal(walkers.states.twist, torch.tensor(TWISTS)[4 * [0, 1]])
    assert torch.equal(walkers["kT"], torch.full((8,), StatePoint(2.0, 6000.0).kT))


def test_start_errors():
    with pytest.raises(ValueError, match=r"num_proton_walkers = 8 must be a multiple of the 3 twists.*9"):
        make_walkers(range(4), twists=[3, 1, 1])
    with pytest.raises(ValueError, match=r"= 8 must be a multiple of the 3 state points times 2 twists.*12"):
        make_walkers(range(4), densities=(1.0, 1.5, 2.0))
    with pytest.raises(ValueError, match="below num_groups = 4"):
        make_walkers([4])
    states, stratum = WalkerStates.at(2.0, twist=torch.zeros(4, 3)), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"cell needs \(W, 4, 3\)"):
        NestedSampler(SYSTEM).start(torch.zeros(4, 5, 3), states, stratum, 2, WalkerRandom([0], 0))
    with pytest.raises(ValueError, match="num_proton_walkers = 4 do not divide into 3 groups"):
        NestedSampler(SYSTEM).start(torch.zeros(4, 4, 3), states, stratum, 2, WalkerRandom(range(3), 0))
    with pytest.raises(ValueError, match="num_electron_walkers = 0"):
        make_walkers(range(4), num_electron_walkers=0)


def test_state_survives_saving_with_weights_only():
    walkers = make_walkers(range(4))
    walkers.num_sweeps, walkers.equilibrated = 17, True
    walkers.log_widths["protons"] = torch.tensor(-1.25)
    buffer = io.BytesIO()
    torch.save(walkers.state_dict(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    resumed = make_walkers(range(4))
    resumed["protons"] = torch.zeros_like(resumed.protons)
    resumed.load_state_dict(state)
    assert set(resumed.fields) == set(walkers.fields) == {"protons", "electrons", "rs", "kT", "twist", "stratum"}
    assert all(torch.equal(resumed[name], value) for name, value in walkers.fields.items())
    assert resumed.log_widths == walkers.log_widths
    assert set(resumed.log_widths) == {"protons", "electrons"}
    assert resumed.num_sweeps == 17
    assert resumed.equilibrated
    assert torch.equal(resumed.random.normal((8, 2)), walkers.random.normal((8, 2)))


def test_saved_state_does_not_follow_the_walkers():
    walkers = make_walkers(range(4))
    state = walkers.state_dict()
    walkers["protons"] += 1.0
    walkers.log_widths["protons"] += 1.0
    assert not torch.equal(state["fields"]["protons"], walkers.protons)
    assert state["log_widths"]["protons"] != walkers.log_widths["protons"]


def test_states_merge_and_groups_are_picked_out():
    whole = make_walkers(range(4))
    merged = merge_walker_states([make_walkers([2, 3]).state_dict(), make_walkers([0, 1]).state_dict()])
    expected = whole.state_dict()
    assert merged["random"]["groups"] == [0, 1, 2, 3]
    assert torch.equal(merged["random"]["generators"], expected["random"]["generators"])
    assert set(merged["fields"]) == set(expected["fields"])
    assert all(torch.equal(merged["fields"][name], value) for name, value in expected["fields"].items())
    part = make_walkers([1, 3])
    part["electrons"] = torch.zeros_like(part.electrons)
    part.load_state_dict(merged)
    assert torch.equal(part.electrons, whole.electrons[[2, 3, 6, 7]])
    assert torch.equal(part.random.uniform((2, 3)), whole.random.uniform((4, 3))[[1, 3]])


def test_load_errors_are_one_line():
    walkers, good = make_walkers(range(4)), make_walkers(range(4)).state_dict()
    fields = good["fields"]
    cases = {
        "saved electrons have shape": {"fields": fields | {"electrons": fields["electrons"][:, :1]}},
        "saved protons have shape": {"fields": fields | {"protons": fields["protons"][:, :2]}},
        r"lack \['num_sweeps'\].*damaged": {"num_sweeps": None},
        r"lack \['electrons', 'rs'\].*damaged": {"fields": without(fields, "rs", "electrons")},
        "no groups": {"random": {**good["random"], "groups": [0, 1, 2, 7]}},
    }
    for message, change in cases.items():
        state = {name: value for name, value in {**good, **change}.items() if value is not None}
        with pytest.raises(ValueError, match=message) as caught:
            walkers.load_state_dict(state)
        assert "\n" not in str(caught.value)


def without(fields, *names):
    return {name: value for name, value in fields.items() if name not in names}


@pytest.mark.parametrize("name", ["rs", "kT", "twist", "stratum"])
def test_constant_fields_that_differ_are_refused(name):
    """And nothing is taken of such a state."""
    walkers, state = make_walkers(range(4)), make_walkers(range(4)).state_dict()
    before = walkers.state_dict()
    state["fields"] |= {name: state["fields"][name] + 1, "protons": torch.zeros_like(walkers.protons)}
    with pytest.raises(
        ValueError, match=f"other values of {name} than this run; resume with the keys system"
    ) as caught:
        walkers.load_state_dict(state)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(walkers[field], value) for field, value in before["fields"].items())


def test_a_field_may_be_left_to_the_moves():
    """Twists that are drawn anew in every sweep are no constant of the walkers."""
    walkers, other = make_walkers(range(4)), make_walkers(range(4))
    walkers.constant = ("rs", "kT", "stratum")
    other["twist"] += 0.1
    walkers.load_state_dict(other.state_dict())
    assert torch.equal(walkers["twist"], other["twist"])


# --- a field of a new kind of move: nothing in the package knows it --------------------------------------------------


def with_beads(groups, start=0.0, dtype=torch.float64):
    """Walkers with four numbers each, or with four occupation numbers."""
    walkers = make_walkers(groups)
    number = torch.tensor([2 * group + k for group in groups for k in range(2)])
    walkers["beads"] = (start + 10.0 * number[:, None] + torch.arange(4.0)).to(dtype)
    walkers.log_widths["beads"] = torch.tensor(-0.5 - start)
    return walkers


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
def test_an_added_field_is_saved_merged_and_picked_out_like_the_others(dtype):
    whole = with_beads(range(4), dtype=dtype)
    merged = merge_walker_states([with_beads(groups, dtype=dtype).state_dict() for groups in ([2, 3], [0, 1])])
    assert torch.equal(merged["fields"]["beads"], whole["beads"])
    buffer = io.BytesIO()
    torch.save(merged, buffer)
    buffer.seek(0)
    part = with_beads([1, 3], start=7.0, dtype=dtype)
    part.load_state_dict(torch.load(buffer, weights_only=True))
    assert part["beads"].dtype == dtype
    assert torch.equal(part["beads"], whole["beads"][[2, 3, 6, 7]])
    assert torch.equal(part.electrons, whole.electrons[[2, 3, 6, 7]])
    assert part.log_widths["beads"] == whole.log_widths["beads"]


def test_an_added_field_outlives_a_sweep():
    walkers = with_beads(range(4))
    before = walkers["beads"].clone()
    sampler = NestedSampler(SYSTEM, num_proton_steps=1, num_electron_steps=1)
    sampler.step(walkers, lambda x: torch.zeros(8), lambda _: lambda r: torch.zeros(8, 3), adapt=True)
    assert torch.equal(walkers["beads"], before)


def test_an_added_field_that_is_constant_must_be_the_same():
    walkers, saved = with_beads(range(4)), with_beads(range(4), start=1.0).state_dict()
    walkers.constant += ("beads",)
    with pytest.raises(ValueError, match="saved walkers have other values of beads than this run; ") as caught:
        walkers.load_state_dict(saved)
    assert "\n" not in str(caught.value)


def test_an_added_field_of_another_shape_is_refused():
    walkers, saved = with_beads(range(4)), with_beads(range(4)).state_dict()
    saved["fields"]["beads"] = saved["fields"]["beads"][:, :3]
    with pytest.raises(ValueError, match=r"saved beads have shape \(8, 3\) but this run needs \(8, 4\)"):
        walkers.load_state_dict(saved)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
def test_an_added_field_comes_along_into_a_run_that_has_not_made_it_yet(dtype):
    """As the base protons do, which the first sweep through the base adds: a resumed run begins without them."""
    saved, fresh = with_beads(range(4), dtype=dtype), make_walkers(range(4))
    fresh.load_state_dict(saved.state_dict())
    assert fresh["beads"].dtype == dtype
    assert torch.equal(fresh["beads"], saved["beads"])
