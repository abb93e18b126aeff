"""Direct sampling of p(x): the same law as Metropolis chains on p(x) and as quadrature, failures, resume, processes."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from lightning_vfe.models.base.uniform import UniformBase
from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.statistics import estimate
from lightning_vfe.physics.strata import Strata
from lightning_vfe.physics.system import System
from lightning_vfe.sampling.direct import TransportedDensity
from lightning_vfe.sampling.nested import NestedSampler
from lightning_vfe.sampling.random import WalkerRandom
from lightning_vfe.sampling.walkers import merge_walker_states
from lightning_vfe.state.targets import ProtonTargets, base_density, in_units_of_rs
from tests.helpers.flows import make_flow
from tests.helpers.plasma import pair_grid
from tests.helpers.processes import run_processes
from tests.helpers.states import states_at

RS = 1.25


class RepulsiveBase(torch.nn.Module):
    """ln p_base(z) = -sum_pairs A exp(-d / l), d the smooth periodic distance; not normalised, as chains allow."""

    def __init__(self, cell, strength=4.0):
        super().__init__()
        self.cell, self.strength = cell, strength

    def energy(self, z, states=None):
        first, second = torch.triu_indices(z.shape[-2], z.shape[-2], 1)
        distance = self.cell.smooth_distance(z[..., first, :] - z[..., second, :])
        return self.strength * torch.exp(-distance / (0.3 * self.cell.length)).sum(-1)

    def log_prob(self, z, states, energy=None):
        return -(self.energy(z) if energy is None else energy)


def build(num_atoms, base, strength=0.7):
    cell = PeriodicCell(num_atoms, RS)
    parts = UniformBase(System(num_atoms)) if base == "uniform" else RepulsiveBase(cell)
    return cell, ProtonDensity(parts, make_flow(cell, 5, strength, num_steps=1, num_layers=1))


def electron_target(walkers):
    protons, wave = walkers.protons[:, None], 2 * math.pi / System(walkers.protons.shape[1]).cell.length
    return lambda electrons: 2.0 * torch.cos(wave * (electrons - protons)).sum(dim=(-1, -2))


def make_sampler(cell, rule="gaussian", num_proton_steps=3, num_electron_steps=1, **settings):
    return NestedSampler(
        System(cell.num_atoms),
        rule,
        num_proton_steps=num_proton_steps,
        num_electron_steps=num_electron_steps,
        **settings,
    )


def start(sampler, cell, groups=range(4), per_group=16, seed=2):
    random, count = WalkerRandom(groups, seed), per_group * len(groups)
    protons = random.uniform((count, cell.num_atoms, 3)) * cell.length / RS
    return sampler.start(protons, states_at(cell, count), torch.zeros(count, dtype=torch.int64), 2, random)


def metropolis_density(density, states):
    return in_units_of_rs(lambda x: density.log_prob(x, states), states.rs)


def observables(density, x, states):
    """ln|det|, base energy, and three functions of the pair distances; means over the pairs.  # (5, W)

    Args:
        x: in units of rs.  # (W, N, 3)
    """
    terms, cell = density.evaluate(states.rs[:, None, None] * x, states), System(x.shape[1]).cell
    assert (terms.sign_det_dzdx > 0).all()
    first, second = torch.triu_indices(cell.num_atoms, cell.num_atoms, 1)
    distance = cell.smooth_distance(x[:, first] - x[:, second]) / cell.length  # (W, pairs)
    bells = [torch.exp(-0.5 * ((distance - centre) / 0.06) ** 2).mean(-1) for centre in (0.15, 0.3, 0.45)]
    return torch.stack([terms.log_abs_det_dzdx, terms.base_energy, *bells])


@torch.no_grad()
def by_quadrature(density, states):
    """The observables of two protons of one state, by p(x) on a grid of relative vectors.

    The grid is fine enough, since the integral of p(x) is that of p_base.
    """
    pairs = pair_grid(System(2).cell, 20)
    states = states.expand(len(pairs))
    log_prob, log_base = (part.log_prob(states.rs[:, None, None] * pairs, states) for part in (density, density.base))
    assert abs(log_prob.exp().mean() / log_base.exp().mean() - 1) < 2e-3
    return observables(density, pairs, states) @ torch.softmax(log_prob, dim=0)


def sweep(sampler, walkers, protons, sweeps):
    """Equilibrate; the protons after each sweep that follows.  # (W, N, 3) each"""
    for _ in range(8):
        sampler.step(walkers, protons, electron_target, adapt=True)
    positions = []
    for _ in range(sweeps):
        report = sampler.step(walkers, protons, electron_target, adapt=False)
        assert report.get("num_failed_inversions", 0) == 0
        positions.append(walkers.protons)
    return positions


def estimates(series):
    """Value and error of each observable, from one (5, W) for each sweep."""
    found = [estimate(values) for values in torch.stack(series).unbind(1)]
    return torch.tensor([e.value for e in found]), torch.tensor([e.error for e in found])


@torch.no_grad()
def measure(cell, density, way, sweeps, num_proton_steps, rule="gaussian"):
    """Values and errors of the observables, and the walkers."""
    sampler = make_sampler(cell, rule, num_proton_steps)
    walkers = start(sampler, cell)
    protons = (base_density if way == "direct" else metropolis_density)(density, walkers.states)
    series = sweep(sampler, walkers, protons, sweeps)
    return *estimates([observables(density, x, walkers.states) for x in series]), walkers


@pytest.mark.parametrize(("base", "rule"), [("uniform", "gaussian"), ("repulsive", "langevin")])
def test_two_protons_against_quadrature(base, rule):
    cell, density = build(2, base)
    exact = by_quadrature(density, states_at(cell))
    value, error, _ = measure(cell, density, "direct", sweeps=20, num_proton_steps=8, rule=rule)
    used = error > 0  # the uniform base has no energy
    pull = (value - exact)[used] / error[used]
    assert used.sum() == (4 if base == "uniform" else 5)
    assert pull.abs().max() < 4, f"{pull} standard errors off"


@pytest.mark.parametrize(("way", "sweeps"), [("direct", 20), ("metropolis", 40), ("delayed", 40)])
@torch.no_grad()
def test_walkers_of_two_states_follow_each_its_own_density(way, sweeps):
    """Neighbouring walkers differ in density and temperature, of which the map takes notice."""
    cell, density = build(2, "uniform")
    strata = Strata.of(states=[[0.8 * RS, 4000.0], [2 * RS, 30000.0]])
    number, random = torch.tensor([0, 1]).repeat(64), WalkerRandom(range(4), 2)
    protons = random.uniform((len(number), 2, 3)) * System(2).cell.length
    states = strata.walker_states(number, like=protons)
    exact = [by_quadrature(density, states[state]) for state in range(2)]
    sampler = make_sampler(cell, num_proton_steps=5)
    walkers = sampler.start(protons, states, number, 2, random)
    target = base_density(density, states) if way == "direct" else ProtonTargets(density, way).at(states)
    series = [observables(density, x, states) for x in sweep(sampler, walkers, target, sweeps)]
    for state in range(2):
        value, error = estimates([values[:, number == state] for values in series])
        pull, other = (((value - expected) / error)[error > 0] for expected in (exact[state], exact[1 - state]))
        assert len(pull) == 4, f"{pull} standard errors off at state {state}"
        assert pull.abs().max() < 4, f"{pull} standard errors off at state {state}"
        assert other.abs().max() > 6, "the states are not told apart"


@pytest.mark.parametrize("base", ["uniform", "repulsive"])
def test_four_protons_as_metropolis_chains_find_them(base):
    cell, density = build(4, base)
    value, error, walkers = measure(cell, density, "direct", sweeps=15, num_proton_steps=20)
    other, other_error, _ = measure(cell, density, "metropolis", sweeps=50, num_proton_steps=3)
    used = error > 0
    pull = ((value - other) / torch.hypot(error, other_error))[used]
    assert pull.abs().max() < 4, f"{pull} standard errors off"
    assert used.sum() == (4 if base == "uniform" else 5)
    with torch.no_grad():
        z = density.flow.to_base(RS * walkers.protons, walkers.states).z
        moved = cell.minimum_image(z - RS * walkers["base_protons"])
    assert moved.abs().max() < 1e-9


def test_base_chains_do_not_notice_other_parameters():
    """Only x follows the parameters: the same base protons, bit for bit, whatever the map."""
    ends = []
    for strength in (0.2, 0.7):
        cell, density = build(4, "repulsive", strength)
        sampler = make_sampler(cell)
        walkers = start(sampler, cell)
        walkers["base_protons"] = walkers.protons.clone()
        for _ in range(3):
            sampler.step(walkers, base_density(density, walkers.states), electron_target, adapt=True)
        ends.append(walkers)
    assert torch.equal(ends[0]["base_protons"], ends[1]["base_protons"])
    assert RS * (ends[0].protons - ends[1].protons).abs().max() > 0.01


def test_independent_draws_leave_the_width_alone():
    cell, density = build(2, "uniform")
    sampler = make_sampler(cell)
    walkers = start(sampler, cell)
    width = walkers.log_widths["protons"].clone()
    report = sampler.step(walkers, base_density(density, walkers.states), electron_target, adapt=True)
    assert report["proton_acceptance"] == 1
    assert torch.equal(width, walkers.log_widths["protons"])


def test_electrons_follow_their_protons_the_short_way():
    """The electrons sit on their protons, which cross the cell's face: each stays on its own."""
    cell = PeriodicCell(2, RS)
    sampler = make_sampler(cell, num_proton_steps=2, initial_electron_width=1e-9)
    walkers = start(sampler, cell)
    walkers["electrons"] = walkers.protons[:, None].expand_as(walkers.electrons).clone()
    density = TransportedDensity(lambda z: torch.zeros(len(z)), lambda x: x, lambda z: (z, torch.ones(len(z)).bool()))
    sampler.step(walkers, density, electron_target, adapt=False)
    away = cell.minimum_image(RS * (walkers.electrons - walkers.protons[:, None]))
    assert away.abs().max() < 1e-6


def test_walkers_without_an_inverse_stay_and_are_counted():
    cell, density = build(2, "repulsive")
    sampler = make_sampler(cell)
    walkers = start(sampler, cell)
    whole = base_density(density, walkers.states)

    def half(z):
        x, found = whole.from_base(z)
        return torch.where(found[:, None, None], x, torch.nan), found & (torch.arange(len(z)) % 2 == 0)

    sampler.step(walkers, whole, electron_target, adapt=False)
    old_x, old_z = walkers.protons, walkers["base_protons"]
    report = sampler.step(walkers, dataclasses.replace(whole, from_base=half), electron_target, adapt=False)
    assert report["num_failed_inversions"] == 32
    assert torch.equal(walkers.protons[1::2], old_x[1::2])
    assert torch.equal(walkers["base_protons"][1::2], old_z[1::2])
    assert (walkers.protons[::2] != old_x[::2]).any(-1).any(-1).float().mean() > 0.5
    again = sampler.step(walkers, whole, electron_target, adapt=False, sum_over_processes=lambda values: 2 * values)
    assert again["num_failed_inversions"] == 0


def trajectory(sampler, walkers, density, sweeps, add_up=None):
    path, target = [], base_density(density, walkers.states)
    for _ in range(sweeps):
        sampler.step(walkers, target, electron_target, True, add_up)
        path.append((walkers["base_protons"], walkers.protons, walkers.electrons, walkers.log_widths["protons"]))
    return path


@pytest.mark.parametrize("base", ["uniform", "repulsive"])
def test_resume_is_exact(base):
    cell, density = build(2, base)
    sampler = make_sampler(cell, "langevin", num_electron_steps=2)
    walkers = start(sampler, cell, per_group=2)
    trajectory(sampler, walkers, density, 2)
    state = walkers.state_dict()
    assert torch.equal(state["fields"]["base_protons"], walkers["base_protons"])
    expected = trajectory(sampler, walkers, density, 3)
    resumed = start(sampler, cell, per_group=2, seed=3)
    resumed.load_state_dict(state)
    for old, new in zip(expected, trajectory(sampler, resumed, density, 3), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(old, new, strict=True))


def test_saved_chains_on_p_go_on_as_chains_on_the_base_and_back():
    cell, density = build(2, "repulsive")
    sampler = make_sampler(cell)
    walkers = start(sampler, cell, per_group=2)
    states = walkers.states
    sampler.step(walkers, metropolis_density(density, states), electron_target, adapt=False)
    resumed = start(sampler, cell, per_group=2, seed=3)
    resumed.load_state_dict(walkers.state_dict())
    assert "base_protons" not in resumed.fields
    stay = dataclasses.replace(base_density(density, states), log_prob=lambda z: torch.full((len(z),), -torch.inf))
    sampler.step(resumed, stay, electron_target, adapt=False)  # no proposal is accepted
    assert "base_protons" in resumed.fields
    away = cell.minimum_image(RS * (resumed.protons - walkers.protons))
    assert away.abs().max() < 1e-8
    sampler.step(resumed, metropolis_density(density, states), electron_target, adapt=False)
    assert "base_protons" not in resumed.fields
    assert "base_protons" not in resumed.state_dict()["fields"]


@pytest.mark.parametrize("base", ["uniform", "repulsive"])
def test_trajectories_do_not_depend_on_the_number_of_processes(base):
    """Groups {0, 1} and {2, 3} in two processes against one with all; their merged state too."""
    cell, density = build(2, base)
    sampler = make_sampler(cell, num_electron_steps=2)
    whole = start(sampler, cell, per_group=2)
    expected = trajectory(sampler, whole, density, 4)

    def process(rank, gather):
        walkers = start(sampler, cell, groups=[2 * rank, 2 * rank + 1], per_group=2)
        path = trajectory(sampler, walkers, density, 4, lambda values: gather(values[None]).sum(0))
        return path, walkers.state_dict()

    (first, first_state), (second, second_state) = run_processes(process, 2)
    for one, left, right in zip(expected, first, second, strict=True):
        for k in range(3):
            torch.testing.assert_close(torch.cat([left[k], right[k]]), one[k], atol=1e-9, rtol=0)
        assert torch.equal(left[3], one[3])
        assert torch.equal(right[3], one[3])
    merged = merge_walker_states([second_state, first_state])
    torch.testing.assert_close(merged["fields"]["base_protons"], whole["base_protons"], atol=1e-9, rtol=0)


def test_unknown_way_is_one_clear_line():
    message = "proton_sampling = gibbs is unknown; choose metropolis, direct, delayed or ceimc"
    with pytest.raises(ValueError, match=message):
        NestedSampler(System(2), proton_sampling="gibbs")
