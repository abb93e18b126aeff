"""Delayed acceptance: the exact law whatever the surrogate, rejected ends, resume, processes."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.special import iv

from lightning_vfe.physics.state_point import WalkerStates
from lightning_vfe.physics.system import System
from lightning_vfe.sampling.delayed import DelayedDensity, move_by_surrogate
from lightning_vfe.sampling.nested import NestedSampler
from lightning_vfe.sampling.proposals import make_proposal
from lightning_vfe.sampling.random import WalkerRandom
from lightning_vfe.sampling.walkers import Walkers
from tests.helpers.processes import run_processes

SYSTEM = System(num_atoms=2)
CELL = SYSTEM.cell
WAVE = 2 * math.pi / CELL.length
KAPPA, WIDTH = 1.5, torch.tensor(0.3)


def log_prob(protons):
    return KAPPA * torch.cos(WAVE * protons).sum(dim=(-1, -2))


def poor(protons):
    """A surrogate that is flatter, and has its maximum elsewhere."""
    return 0.5 * KAPPA * torch.cos(WAVE * protons - 1.0).sum(dim=(-1, -2))


def electron_target(walkers):
    protons = walkers.protons[:, None]
    return lambda electrons: 2.0 * torch.cos(WAVE * (electrons - protons)).sum(dim=(-1, -2))


def start_at(sampler, protons, random):
    count = len(protons)
    states = WalkerStates.at(2.0, twist=torch.zeros(count, 3))
    return sampler.start(protons, states, torch.zeros(count, dtype=torch.int64), 3, random)


def start(sampler, groups=range(4), per_group=2, seed=2):
    random = WalkerRandom(groups, seed)
    return start_at(sampler, random.uniform((per_group * len(groups), 2, 3)) * CELL.length, random)


def walkers_at(protons, seed=3):
    return Walkers({"protons": protons}, {}, WalkerRandom([0], seed))


def exact_draws(count, seed=4):
    """Protons of the law itself: every coordinate has the von Mises law.  # (W, 2, 3)"""
    torch.manual_seed(seed)
    angles = torch.distributions.VonMises(torch.tensor(0.0), torch.tensor(KAPPA)).sample((count, 2, 3))
    return CELL.wrap(angles / WAVE)


@pytest.mark.parametrize("rule", ["gaussian", "langevin"])
def test_poor_surrogate_leaves_the_law(rule):
    """<cos> of every coordinate is I_1(kappa) / I_0(kappa); on the surrogate alone it would be 0.19 instead of 0.60."""
    sampler = NestedSampler(SYSTEM, rule, num_proton_steps=4, num_electron_steps=1)
    walkers, density = start_at(sampler, exact_draws(256), WalkerRandom(range(4), 2)), DelayedDensity(log_prob, poor)
    for _ in range(30):
        sampler.step(walkers, density, electron_target, adapt=True)
    series, reports = [], []
    for _ in range(80):
        reports.append(sampler.step(walkers, density, electron_target, adapt=False))
        series.append(torch.cos(WAVE * walkers.protons).mean(dim=(-1, -2)))
    means = torch.stack(series).mean(dim=0)  # (W,)
    pull = (means.mean() - iv(1, KAPPA) / iv(0, KAPPA)) / (means.std() / len(means) ** 0.5)
    assert abs(pull) < 4, f"{pull} standard errors off"
    decided = torch.stack([report["delayed_acceptance"] for report in reports]).mean()
    moved = torch.stack([report["proton_acceptance"] for report in reports]).mean()
    assert 0.05 < decided < 0.7, "the surrogate is not poor"
    assert abs(moved - sampler.proton_target_acceptance) < 0.1


@pytest.mark.parametrize("rule", ["gaussian", "langevin"])
def test_detailed_balance(rule):
    """From draws of p, as many walkers go from one region to another as back, and the law stays."""
    x = exact_draws(40000)
    move = move_by_surrogate(
        walkers_at(x), DelayedDensity(log_prob, poor), make_proposal(rule), WIDTH, num_steps=3, cell=CELL
    )
    near, far = (positions[:, 0, 0].mul(WAVE).cos() > 0.5 for positions in (x, move.protons))
    there, back = (near & ~far).sum().double(), (~near & far).sum().double()
    assert there > 500
    assert abs(there - back) < 4 * (there + back).sqrt(), f"{there} there, {back} back"
    left, right = (positions[:, 1, 2].mul(WAVE).sin() > 0.3 for positions in (x, move.protons))
    there, back = (left & ~right).sum().double(), (~left & right).sum().double()
    assert abs(there - back) < 4 * (there + back).sqrt(), f"{there} there, {back} back"


@pytest.mark.parametrize("rule", ["gaussian", "langevin"])
def test_a_perfect_surrogate_is_always_accepted(rule):
    """The sweep then is that of a Metropolis chain on p(x), bit for bit; a constant factor changes nothing."""
    sampler = NestedSampler(SYSTEM, rule, num_proton_steps=5, num_electron_steps=1)
    plain, delayed = start(sampler), start(sampler)
    sampler.step(plain, log_prob, electron_target, adapt=False)
    density = DelayedDensity(log_prob, lambda x: log_prob(x) + 50.0)
    report = sampler.step(delayed, density, electron_target, adapt=False)
    assert report["delayed_acceptance"] == 1
    torch.testing.assert_close(delayed.protons, plain.protons, rtol=0, atol=1e-12)


def test_rejected_protons_stay_with_their_electrons():
    """The density of all other places is zero: no end is accepted, and nothing is carried along."""
    protons = exact_draws(8)

    def only_here(x):
        return torch.where((x == protons).all(-1).all(-1), 0.0, -torch.inf)

    sampler = NestedSampler(SYSTEM, num_proton_steps=20, num_electron_steps=1, initial_electron_width=1e-9)
    walkers = start_at(sampler, protons, WalkerRandom([0], 2))
    electrons = walkers.electrons.clone()
    report = sampler.step(walkers, DelayedDensity(only_here, log_prob), electron_target, adapt=False)
    assert report["delayed_acceptance"] == 0
    assert report["proton_acceptance"] > 0
    assert report["num_stranded"] == 0
    assert torch.equal(walkers.protons, protons)
    assert CELL.minimum_image(walkers.electrons - electrons).abs().max() < 1e-7


def test_electrons_follow_the_end_of_the_chain():
    """The electrons sit on their protons, which cross the cell's face: each stays on its own."""
    sampler = NestedSampler(SYSTEM, num_proton_steps=20, num_electron_steps=1, initial_electron_width=1e-9)
    walkers = start(sampler)
    before = walkers.protons.clone()
    walkers["electrons"] = walkers.protons[:, None].expand(-1, 3, -1, -1).clone()
    sampler.step(walkers, DelayedDensity(log_prob, log_prob), electron_target, adapt=False)
    assert ((walkers.protons - before).abs() > CELL.length / 2).any(), "nobody crossed"
    away = CELL.minimum_image(walkers.electrons - walkers.protons[:, None])
    assert away.abs().max() < 1e-6


def test_a_walker_where_the_density_is_zero_takes_any_other_place():
    protons = exact_draws(4)
    here = protons[0].clone()

    def zero_here(x):
        return torch.where((x == here).all(-1).all(-1), -torch.inf, log_prob(x))

    walkers, rule = walkers_at(protons), make_proposal("gaussian")
    move = move_by_surrogate(walkers, DelayedDensity(zero_here, poor), rule, WIDTH, num_steps=4, cell=CELL)
    assert move.fractions["delayed_acceptance"][0][0]
    assert move.totals["num_stranded"] == 0
    move = move_by_surrogate(walkers, DelayedDensity(zero_here, zero_here), rule, WIDTH, num_steps=4, cell=CELL)
    assert move.fractions["delayed_acceptance"][0][0]
    assert move.totals["num_stranded"] == 0


def trajectory(sampler, walkers, num_sweeps, sum_over_processes=None):
    path = []
    for _ in range(num_sweeps):
        report = sampler.step(walkers, DelayedDensity(log_prob, poor), electron_target, True, sum_over_processes)
        path.append((walkers.protons, walkers.electrons, walkers.log_widths["protons"], report["delayed_acceptance"]))
    return path


@pytest.mark.parametrize("rule", ["gaussian", "langevin"])
def test_resume_is_exact(rule):
    sampler = NestedSampler(SYSTEM, rule, num_proton_steps=3, num_electron_steps=2)
    walkers = start(sampler)
    trajectory(sampler, walkers, 3)
    state = walkers.state_dict()
    expected = trajectory(sampler, walkers, 3)
    resumed = start(sampler, seed=5)
    resumed.load_state_dict(state)
    for old, new in zip(expected, trajectory(sampler, resumed, 3), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(old, new, strict=True))


def test_trajectories_do_not_depend_on_the_number_of_processes():
    """Groups {0, 1} and {2, 3} in two processes against one with all: bit for bit."""
    sampler = NestedSampler(SYSTEM, num_proton_steps=3, num_electron_steps=2)
    expected = trajectory(sampler, start(sampler), 5)

    def process(rank, gather):
        walkers = start(sampler, groups=[2 * rank, 2 * rank + 1])
        return trajectory(sampler, walkers, 5, lambda values: gather(values[None]).sum(0))

    for one, left, right in zip(expected, *run_processes(process, 2), strict=True):
        assert all(torch.equal(torch.cat([left[k], right[k]]), one[k]) for k in range(2))
        assert all(left[k] == right[k] == one[k] for k in (2, 3))
