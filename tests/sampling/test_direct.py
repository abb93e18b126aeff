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
from lightning_vfe.sampling.direct import BaseDensity
from lightning_vfe.sampling.nested import NestedSampler
from lightning_vfe.sampling.random import WalkerRandom
from lightning_vfe.sampling.state import merge_walker_states
from tests.helpers.flows import make_flow
from tests.helpers.plasma import pair_grid
from tests.helpers.processes import run_processes


class RepulsiveBase(torch.nn.Module):
    """ln p_base(z) = -sum_pairs A exp(-d / l), d the smooth periodic distance; not normalised, as chains allow."""

    def __init__(self, cell, strength=4.0):
        super().__init__()
        self.cell, self.strength = cell, strength

    def energy(self, z):
        first, second = torch.triu_indices(z.shape[-2], z.shape[-2], 1)
        distance = self.cell.smooth_distance(z[..., first, :] - z[..., second, :])
        return self.strength * torch.exp(-distance / (0.3 * self.cell.length)).sum(-1)

    def log_prob(self, z, energy=None):
        return -(self.energy(z) if energy is None else energy)


def build(num_atoms, base, strength=0.7):
    cell = PeriodicCell(num_atoms, 1.25)
    parts = UniformBase(cell, 6000.0) if base == "uniform" else RepulsiveBase(cell)
    return cell, ProtonDensity(parts, make_flow(cell, strength=strength, num_steps=1, num_layers=1))


def base_density(density):
    def from_base(z):
        found = density.flow.from_base(z)
        return found.x, found.converged

    to_base = torch.no_grad()(lambda x: density.flow.to_base(x).z)
    return BaseDensity(density.base.log_prob, to_base, from_base, getattr(density.base, "sample", None))


def electron_log_prob(protons, electrons):
    length = PeriodicCell(protons.shape[1], 1.25).length
    return 2.0 * torch.cos(2 * math.pi / length * (electrons - protons[:, None])).sum(dim=(-1, -2))


def start(sampler, cell, groups=range(4), per_group=16, seed=2):
    random = WalkerRandom(groups, seed)
    protons = random.uniform((per_group * len(groups), cell.num_atoms, 3)) * cell.length
    return sampler.start(protons, torch.zeros(1, 3), 2, random, 4)


def observables(cell, density, x):
    """ln|det|, base energy, and three functions of the pair distances; means over the pairs.  # (5, W)"""
    terms = density.evaluate(x)
    assert (terms.sign_det_dzdx > 0).all()
    first, second = torch.triu_indices(cell.num_atoms, cell.num_atoms, 1)
    distance = cell.smooth_distance(x[:, first] - x[:, second]) / cell.length  # (W, pairs)
    bells = [torch.exp(-0.5 * ((distance - centre) / 0.06) ** 2).mean(-1) for centre in (0.15, 0.3, 0.45)]
    return torch.stack([terms.log_abs_det_dzdx, density.base.energy(terms.z), *bells])


@torch.no_grad()
def measure(cell, density, way, sweeps, num_proton_steps, rule="gaussian"):
    """Values and errors of the observables, and the walkers."""
    sampler = NestedSampler(cell, rule, num_proton_steps=num_proton_steps, num_electron_steps=1)
    walkers = start(sampler, cell)
    protons = base_density(density) if way == "direct" else density.log_prob
    for _ in range(8):
        sampler.step(walkers, protons, electron_log_prob, adapt=True)
    series = []
    for _ in range(sweeps):
        report = sampler.step(walkers, protons, electron_log_prob, adapt=False)
        assert way == "metropolis" or report.num_failed_inversions == 0
        series.append(observables(cell, density, walkers.protons))
    found = [estimate(values) for values in torch.stack(series).unbind(1)]
    return torch.tensor([e.value for e in found]), torch.tensor([e.error for e in found]), walkers


@pytest.mark.parametrize(("base", "rule"), [("uniform", "gaussian"), ("repulsive", "langevin")])
def test_two_protons_against_quadrature(base, rule):
    """p(x) on a grid of relative vectors; the grid is fine enough, since the integral of p(x) is that of p_base."""
    cell, density = build(2, base)
    with torch.no_grad():
        pairs = pair_grid(cell, 20)
        weight = torch.softmax(density.log_prob(pairs), dim=0)
        exact = observables(cell, density, pairs) @ weight
        norm = density.log_prob(pairs).exp().mean() / density.base.log_prob(pairs).exp().mean()
    assert abs(norm - 1) < 2e-3
    value, error, _ = measure(cell, density, "direct", sweeps=20, num_proton_steps=8, rule=rule)
    used = error > 0  # the uniform base has no energy
    pull = (value - exact)[used] / error[used]
    assert used.sum() == (4 if base == "uniform" else 5)
    assert pull.abs().max() < 4, f"{pull} standard errors off"


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
        moved = cell.minimum_image(density.flow.to_base(walkers.protons).z - walkers.base_protons)
    assert moved.abs().max() < 1e-9


def test_base_chains_do_not_notice_other_parameters():
    """Only x follows the parameters: the same base protons, bit for bit, whatever the map."""
    ends = []
    for strength in (0.2, 0.7):
        cell, density = build(4, "repulsive", strength)
        sampler = NestedSampler(cell, num_proton_steps=3, num_electron_steps=1)
        walkers = start(sampler, cell)
        walkers.base_protons = walkers.protons.clone()
        for _ in range(3):
            sampler.step(walkers, base_density(density), electron_log_prob, adapt=True)
        ends.append(walkers)
    assert torch.equal(ends[0].base_protons, ends[1].base_protons)
    assert (ends[0].protons - ends[1].protons).abs().max() > 0.01


def test_independent_draws_leave_the_width_alone():
    cell, density = build(2, "uniform")
    sampler = NestedSampler(cell, num_proton_steps=3, num_electron_steps=1)
    walkers = start(sampler, cell)
    width = walkers.proton_log_width.clone()
    report = sampler.step(walkers, base_density(density), electron_log_prob, adapt=True)
    assert report.proton_acceptance == 1 and torch.equal(width, walkers.proton_log_width)


def test_electrons_follow_their_protons_the_short_way():
    """The electrons sit on their protons, which cross the cell's face: each stays on its own."""
    cell = PeriodicCell(2, 1.25)
    sampler = NestedSampler(cell, num_proton_steps=2, num_electron_steps=1, initial_electron_width=1e-9)
    walkers = start(sampler, cell)
    walkers.electrons = walkers.protons[:, None].expand_as(walkers.electrons).clone()
    density = BaseDensity(lambda z: torch.zeros(len(z)), lambda x: x, lambda z: (z, torch.ones(len(z)).bool()))
    sampler.step(walkers, density, electron_log_prob, adapt=False)
    away = cell.minimum_image(walkers.electrons - walkers.protons[:, None])
    assert away.abs().max() < 1e-6


def test_walkers_without_an_inverse_stay_and_are_counted():
    cell, density = build(2, "repulsive")
    whole = base_density(density)

    def half(z):
        x, found = whole.from_base(z)
        return torch.where(found[:, None, None], x, torch.nan), found & (torch.arange(len(z)) % 2 == 0)

    sampler = NestedSampler(cell, num_proton_steps=3, num_electron_steps=1)
    walkers = start(sampler, cell)
    sampler.step(walkers, whole, electron_log_prob, adapt=False)
    old_x, old_z = walkers.protons, walkers.base_protons
    report = sampler.step(walkers, dataclasses.replace(whole, from_base=half), electron_log_prob, adapt=False)
    assert report.num_failed_inversions == 32
    assert torch.equal(walkers.protons[1::2], old_x[1::2]) and torch.equal(walkers.base_protons[1::2], old_z[1::2])
    assert (walkers.protons[::2] != old_x[::2]).any(-1).any(-1).float().mean() > 0.5
    again = sampler.step(walkers, whole, electron_log_prob, adapt=False, sum_over_processes=lambda values: 2 * values)
    assert again.num_failed_inversions == 0


def trajectory(sampler, walkers, density, sweeps, add_up=None):
    path = []
    for _ in range(sweeps):
        sampler.step(walkers, density, electron_log_prob, True, add_up)
        path.append((walkers.base_protons, walkers.protons, walkers.electrons, walkers.proton_log_width))
    return path


@pytest.mark.parametrize("base", ["uniform", "repulsive"])
def test_resume_is_exact(base):
    cell, density = build(2, base)
    direct = base_density(density)
    sampler = NestedSampler(cell, "langevin", num_proton_steps=3, num_electron_steps=2)
    walkers = start(sampler, cell, per_group=2)
    trajectory(sampler, walkers, direct, 2)
    state = walkers.state_dict()
    assert torch.equal(state["base_protons"], walkers.base_protons)
    expected = trajectory(sampler, walkers, direct, 3)
    resumed = start(sampler, cell, per_group=2, seed=3)
    resumed.load_state_dict(state)
    for old, new in zip(expected, trajectory(sampler, resumed, direct, 3), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(old, new, strict=True))


def test_saved_chains_on_p_go_on_as_chains_on_the_base_and_back():
    cell, density = build(2, "repulsive")
    sampler = NestedSampler(cell, num_proton_steps=3, num_electron_steps=1)
    walkers = start(sampler, cell, per_group=2)
    sampler.step(walkers, density.log_prob, electron_log_prob, adapt=False)
    resumed = start(sampler, cell, per_group=2, seed=3)
    resumed.load_state_dict(walkers.state_dict())
    assert resumed.base_protons is None
    stay = dataclasses.replace(base_density(density), log_prob=lambda z: torch.full((len(z),), -torch.inf))
    sampler.step(resumed, stay, electron_log_prob, adapt=False)  # no proposal is accepted
    away = cell.minimum_image(resumed.protons - walkers.protons)
    assert away.abs().max() < 1e-8
    sampler.step(resumed, density.log_prob, electron_log_prob, adapt=False)
    assert resumed.base_protons is None and "base_protons" not in resumed.state_dict()


@pytest.mark.parametrize("base", ["uniform", "repulsive"])
def test_trajectories_do_not_depend_on_the_number_of_processes(base):
    """Groups {0, 1} and {2, 3} in two processes against one with all; their merged state too."""
    cell, density = build(2, base)
    direct = base_density(density)
    sampler = NestedSampler(cell, num_proton_steps=3, num_electron_steps=2)
    whole = start(sampler, cell, per_group=2)
    expected = trajectory(sampler, whole, direct, 4)

    def process(rank, gather):
        walkers = start(sampler, cell, groups=[2 * rank, 2 * rank + 1], per_group=2)
        path = trajectory(sampler, walkers, direct, 4, lambda values: gather(values[None]).sum(0))
        return path, walkers.state_dict()

    (first, first_state), (second, second_state) = run_processes(process, 2)
    for one, left, right in zip(expected, first, second, strict=True):
        for k in range(3):
            torch.testing.assert_close(torch.cat([left[k], right[k]]), one[k], atol=1e-9, rtol=0)
        assert torch.equal(left[3], one[3]) and torch.equal(right[3], one[3])
    merged = merge_walker_states([second_state, first_state])
    torch.testing.assert_close(merged["base_protons"], whole.base_protons, atol=1e-9, rtol=0)


def test_unknown_way_is_one_clear_line():
    message = "sampler.proton_sampling = 'gibbs' is unknown; choose metropolis, direct or delayed"
    with pytest.raises(ValueError, match=message):
        NestedSampler(PeriodicCell(2, 1.25), proton_sampling="gibbs")
