"""Walkers: start, twists, saving and picking groups out of a saved state."""

import io

import pytest
import torch

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.sampling.nested import NestedSampler
from lightning_vfe.sampling.random import WalkerRandom
from lightning_vfe.sampling.state import initial_electrons, merge_walker_states, twist_index

CELL = PeriodicCell(num_atoms=4, rs=2.0)
TWISTS = torch.tensor([[0.0, 0.0, 0.0], [0.25, 0.5, -0.25]], dtype=torch.float64)


def make_walkers(groups, num_groups=4, twists=TWISTS, num_electron_walkers=3):
    random = WalkerRandom(groups, seed=5)
    protons = random.uniform((2 * len(groups), 4, 3)) * CELL.length
    return NestedSampler(CELL).start(protons, twists, num_electron_walkers, random, num_groups)


def test_each_proton_gets_one_electron_and_spins_are_shuffled():
    random = WalkerRandom(range(2), seed=0)
    protons = random.uniform((30, 4, 3)) * CELL.length
    electrons = initial_electrons(protons, 5, random, CELL, cloud_width=0.0)
    assert electrons.shape == (30, 5, 4, 3)
    distance = CELL.minimum_image(electrons[:, :, :, None] - protons[:, None, None]).norm(dim=-1)  # (W, B, N, N)
    host = distance.argmin(dim=-1)
    assert distance.min(dim=-1).values.max() < 1e-12
    assert torch.equal(host.sort(dim=-1).values, torch.arange(4).expand(30, 5, 4))
    # Electron 0 (up) sits on each proton equally often: 150 draws, probability 1/4.
    share = torch.bincount(host[..., 0].flatten(), minlength=4) / 150
    assert (share - 0.25).abs().max() < 4 * (0.25 * 0.75 / 150) ** 0.5


def test_clouds_have_their_width_and_lie_in_the_cell():
    random = WalkerRandom(range(1), seed=0)
    cell = PeriodicCell(num_atoms=2, rs=20.0)
    protons = torch.zeros(2000, 2, 3)
    electrons = initial_electrons(protons, 1, random, cell)
    assert electrons.min() >= 0 and electrons.max() < cell.length
    variance = cell.minimum_image(electrons).var()
    assert abs(variance - 1) < 4 * (2 / 12_000) ** 0.5


def test_twists_go_round_over_the_walkers_of_the_whole_run():
    assert twist_index(3, 6, [0, 1], 2).tolist() == [0, 1, 2, 0, 1, 2]
    assert twist_index(3, 2, [1], 3).tolist() == [2, 0]
    whole = twist_index(4, 8, range(4), 4)
    assert torch.equal(whole, torch.cat([twist_index(4, 4, [0, 1], 4), twist_index(4, 4, [2, 3], 4)]))
    walkers = make_walkers([2, 3])
    assert torch.equal(walkers.twists, TWISTS[[0, 1, 0, 1]])


def test_start_errors():
    with pytest.raises(ValueError, match="sampler.num_proton_walkers = 8 must be a multiple of the 3 twists.*9"):
        make_walkers(range(4), twists=torch.zeros(3, 3))
    with pytest.raises(ValueError, match="below num_groups = 4"):
        make_walkers([4])
    with pytest.raises(ValueError, match=r"cell needs \(W, 4, 3\)"):
        NestedSampler(CELL).start(torch.zeros(4, 5, 3), TWISTS, 2, WalkerRandom([0], 0))
    with pytest.raises(ValueError, match="num_electron_walkers = 0"):
        make_walkers(range(4), num_electron_walkers=0)


def test_state_survives_saving_with_weights_only():
    walkers = make_walkers(range(4))
    walkers.num_sweeps, walkers.equilibrated = 17, True
    walkers.proton_log_width = torch.tensor(-1.25)
    buffer = io.BytesIO()
    torch.save(walkers.state_dict(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    resumed = make_walkers(range(4))
    resumed.protons = torch.zeros_like(resumed.protons)
    resumed.load_state_dict(state)
    for name in ("protons", "electrons", "twists", "proton_log_width", "electron_log_width"):
        assert torch.equal(getattr(resumed, name), getattr(walkers, name)), name
    assert resumed.num_sweeps == 17 and resumed.equilibrated
    assert torch.equal(resumed.random.normal((8, 2)), walkers.random.normal((8, 2)))


def test_saved_state_does_not_follow_the_walkers():
    walkers = make_walkers(range(4))
    state = walkers.state_dict()
    walkers.protons += 1.0
    assert not torch.equal(state["protons"], walkers.protons)


def test_states_merge_and_groups_are_picked_out():
    whole = make_walkers(range(4))
    merged = merge_walker_states([make_walkers([2, 3]).state_dict(), make_walkers([0, 1]).state_dict()])
    expected = whole.state_dict()
    assert merged["random"]["groups"] == [0, 1, 2, 3]
    assert torch.equal(merged["random"]["generators"], expected["random"]["generators"])
    assert torch.equal(merged["protons"], expected["protons"])
    assert torch.equal(merged["electrons"], expected["electrons"])
    part = make_walkers([1, 3])
    part.electrons = torch.zeros_like(part.electrons)
    part.load_state_dict(merged)
    assert torch.equal(part.electrons, whole.electrons[[2, 3, 6, 7]])
    assert torch.equal(part.random.uniform((2, 3)), whole.random.uniform((4, 3))[[1, 3]])


def test_load_errors_are_one_line():
    walkers, good = make_walkers(range(4)), make_walkers(range(4)).state_dict()
    cases = {
        "saved electrons have shape": {"electrons": good["electrons"][:, :1]},
        "saved protons have shape": {"protons": good["protons"][:, :2]},
        "other twists": {"twists": good["twists"] + 0.1},
        "damaged": {"unknown": 1},
        "no groups": {"random": {**good["random"], "groups": [0, 1, 2, 7]}},
    }
    for message, change in cases.items():
        with pytest.raises(ValueError, match=message) as caught:
            walkers.load_state_dict({**good, **change})
        assert "\n" not in str(caught.value)
