"""Replica exchange in temperature: exact distributions behind a barrier, resume, processes, bad settings."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_vfe.errors import SettingError
from lightning_vfe.models.base.uniform import UniformBase
from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.physics.statistics import estimate
from lightning_vfe.physics.strata import Strata
from lightning_vfe.physics.system import System
from lightning_vfe.sampling.direct import TransportedDensity
from lightning_vfe.sampling.nested import NestedSampler
from lightning_vfe.state.targets import base_density
from tests.helpers.flows import make_flow
from tests.helpers.processes import run_processes
from tests.helpers.states import states_at
from tests.helpers.variational import build_state
from tests.sampling.test_direct import build, by_quadrature, estimates, observables, start, sweep, trajectory

LADDER = [1.0, 2.0, 4.0, 8.0]
LENGTH = System(2).cell.length
BARRIER, BIAS = 16.0, 1.0


def wells(z):
    """ln p of two wells of the first coordinate, at 0 and L/2; the others are free.  # (..., 2, 3) -> (...)"""
    angle = 2 * math.pi / LENGTH * z[..., 0, 0]
    return -0.5 * BARRIER * torch.sin(angle) ** 2 + 0.5 * BIAS * torch.cos(angle) + 0.0 * z.sum(dim=(-2, -1))


def in_first_well(z):
    return (torch.cos(2 * math.pi / LENGTH * z[..., 0, 0]) > 0).double()


def identity(z):
    return z, torch.ones(len(z), dtype=torch.bool)


def half_of_the_first_well(z):
    """The protons of the other half have no x."""
    return z, z[..., 0, 0] > 0.25 * LENGTH


def exact(observable, found=identity):
    """Mean of an observable of the first coordinate on a fine grid."""
    z = torch.zeros(20_000, 2, 3)
    z[:, 0, 0] = (torch.arange(len(z)) + 0.5) * (LENGTH / len(z))
    weight = torch.softmax(wells(z), dim=0) * found(z)[1]
    return float(weight @ observable(z).to(weight) / weight.sum())


def chains_of_wells(tempering, found=identity, sweeps=300):
    """Chains that all start in the second well: z after each sweep, and the last report."""
    cell, _ = build(2, "uniform")
    sampler = NestedSampler(System(2), "langevin", num_proton_steps=3, proton_sampling="direct", tempering=tempering)
    walkers = start(sampler, cell)
    walkers.protons[:, 0, 0] = 0.5 * LENGTH
    walkers.log_widths["protons"] = torch.tensor(math.log(0.12 * LENGTH))
    density = TransportedDensity(wells, lambda x: x, found)
    positions = []
    for _ in range(sweeps):
        report = sampler.step(walkers, density, None, adapt=False)
        positions.append(walkers["base_protons"])
    return torch.stack(positions[sweeps // 5 :]), report


def test_tempered_chains_find_both_wells_and_others_do_not():
    z, report = chains_of_wells(LADDER)
    for observable in (in_first_well, wells):
        found = estimate(observable(z))
        assert abs(found.value - exact(observable)) < 4 * found.error, observable
        assert found.error < 0.03
    assert all(0.1 < report[f"exchange_acceptance_{number}"] <= 0.6 for number in (1, 2, 3))
    stuck, _ = chains_of_wells(None, sweeps=100)
    assert in_first_well(stuck).mean() < 0.1 < exact(in_first_well) - 0.5


def test_walkers_without_an_x_keep_all_their_chains():
    """The chains sample the part of p that has an x: hotter chains go back with the others."""
    z, _ = chains_of_wells(LADDER, half_of_the_first_well)
    found, whole = estimate(in_first_well(z)), exact(in_first_well)
    wanted = exact(in_first_well, half_of_the_first_well)
    assert abs(found.value - wanted) < 4 * found.error
    assert abs(whole - wanted) > 8 * found.error, "the test does not see the difference"


@torch.no_grad()
def test_two_protons_against_quadrature():
    cell, density = build(2, "repulsive")
    exact_values = by_quadrature(density, states_at(cell))
    sampler = NestedSampler(
        System(2), "langevin", num_proton_steps=4, num_electron_steps=1, proton_sampling="direct", tempering=[1.0, 1.7]
    )
    walkers = start(sampler, cell)
    series = sweep(sampler, walkers, base_density(density, walkers.states), 20)
    value, error = estimates([observables(density, x, walkers.states) for x in series])
    assert ((value - exact_values) / error).abs().max() < 4


def test_each_chain_has_the_state_of_its_walker():
    strata = Strata.of(states=[[1.0, 4000.0], [2.0, 8000.0]])
    states = strata.walker_states(torch.tensor([0, 1, 1]), like=torch.zeros(()))
    density = base_density(ProtonDensity(UniformBase(System(2)), make_flow(build(2, "uniform")[0], 5, 0.1)), states)
    z = torch.rand(3, 4, 2, 3)
    assert torch.equal(density.log_prob(z), density.log_prob(z[:, 0])[:, None].expand(3, 4))


def tempered(cell, **settings):
    sampler = NestedSampler(
        System(2), num_proton_steps=2, num_electron_steps=1, proton_sampling="direct", tempering=[1.0, 2.0, 3.0]
    )
    return sampler, start(sampler, cell, per_group=2, **settings)


def test_resume_is_exact_and_ladders_may_change():
    cell, density = build(2, "repulsive")
    sampler, walkers = tempered(cell)
    trajectory(sampler, walkers, density, 2)
    state = walkers.state_dict()
    assert state["fields"]["hotter_protons"].shape == (8, 2, 2, 3)
    expected = trajectory(sampler, walkers, density, 3)
    _, resumed = tempered(cell, seed=3)
    resumed.load_state_dict(state)
    for old, new in zip(expected, trajectory(sampler, resumed, density, 3), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(old, new, strict=True))
    other = NestedSampler(System(2), num_electron_steps=1, proton_sampling="direct", tempering=[1.0, 2.0])
    trajectory(other, resumed, density, 1)
    assert resumed["hotter_protons"].shape == (8, 1, 2, 3)
    single = NestedSampler(System(2), num_electron_steps=1, proton_sampling="direct")
    trajectory(single, resumed, density, 1)
    assert "hotter_protons" not in resumed.fields


def test_trajectories_do_not_depend_on_the_number_of_processes():
    cell, density = build(2, "repulsive")
    expected = trajectory(*tempered(cell), density, 3)

    def process(rank, gather):
        chains = tempered(cell, groups=[2 * rank, 2 * rank + 1])
        return trajectory(*chains, density, 3, lambda values: gather(values[None]).sum(0))

    for one, left, right in zip(expected, *run_processes(process, 2), strict=True):
        torch.testing.assert_close(torch.cat([left[0], right[0]]), one[0], atol=1e-9, rtol=0)


@pytest.mark.parametrize("factors", [[1.0], [1.5, 2.0], [1.0, 2.0, 2.0], [1.0, math.inf], []])
def test_factors_that_make_no_ladder_are_refused(factors):
    with pytest.raises(SettingError, match=r"^tempering = .* must be increasing factors of T that begin with 1; give"):
        NestedSampler(System(2), proton_sampling="direct", tempering=factors)


def test_tempering_without_chains_of_base_protons_is_refused():
    with pytest.raises(SettingError, match=r"proton_sampling=metropolis has no chains .*; set sampler\.proton_samp"):
        NestedSampler(System(2), proton_sampling="metropolis", tempering=LADDER)
    moves = {"proton_sampling": "direct", "tempering": LADDER}
    with pytest.raises(SettingError, match="has no effect, since base protons are drawn independently"):
        build_state(moves=moves)
    with pytest.raises(SettingError, match="has no effect, since the protons do not move; drop it"):
        build_state({"protons": "fixed"}, moves)
