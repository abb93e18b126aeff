"""Walkers of which half start as molecules: in every stratum, whatever the groups and the number of processes."""

import pytest
import torch

from lightning_vfe.errors import SettingError
from lightning_vfe.physics.static_structure import molecular_fraction
from tests.helpers.variational import build_state

KEYS = {"rs": 4.0, "temperature_kelvin": 5000.0}


def mixed(keys=None, **settings):
    return build_state(KEYS | (keys or {}), num_atoms=4, structure="mixed", **settings)


def fraction(walkers, cell):
    return molecular_fraction(walkers.protons, cell, 1.8 / walkers["rs"])


@pytest.mark.parametrize(
    ("keys", "num_walkers"), [({}, 8), ({"twists": [2, 1, 1]}, 8), ({"twists": [2, 2, 1], "rs": [3.5, 4.0]}, 16)]
)
def test_half_of_the_walkers_of_each_stratum_start_as_molecules(keys, num_walkers):
    state = mixed(keys, num_proton_walkers=num_walkers)
    walkers = state.place()
    assert torch.equal(fraction(walkers, state.system.cell), 1.0 - walkers["start"])
    for stratum in range(len(state.strata)):
        of_atoms = walkers["start"][walkers["stratum"] == stratum]
        assert of_atoms.sum() * 2 == len(of_atoms) > 0


def test_starts_do_not_depend_on_the_number_of_processes():
    one = mixed({"twists": [2, 1, 1]}).place()
    parts = [mixed({"twists": [2, 1, 1]}).place(rank=rank, num_ranks=2) for rank in range(2)]
    for name in ("start", "protons"):
        assert torch.equal(torch.cat([part[name] for part in parts]), one[name])


def test_walkers_keep_their_start_in_a_checkpoint():
    first, second = mixed(), build_state(KEYS, num_atoms=4, structure="random")
    first.place()
    second.place()
    assert "start" not in second.state_dict()["fields"]
    second.load_state_dict(first.state_dict())
    second.sweep()
    assert torch.equal(second.place()["start"], first.place()["start"])


def test_starts_that_cannot_be_mixed_are_refused():
    with pytest.raises(SettingError, match=r"structure = mixed needs protons that move; set system.protons=sampled"):
        build_state({"protons": "fixed"}, structure="mixed")
    with pytest.raises(SettingError, match=r"num_proton_walkers = 4 gives each twist one walker, .* set it to 8"):
        mixed({"twists": [2, 2, 1]}, num_proton_walkers=4)
