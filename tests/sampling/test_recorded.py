"""Moves in memory that stays: the same chains as plain moves, recorded once for all sweeps, and never required."""

import copy
import math
import warnings

import pytest
import torch
from scipy.special import iv

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.sampling import random as random_module
from lightning_vfe.sampling import recorded
from lightning_vfe.sampling.metropolis import metropolis
from lightning_vfe.sampling.proposals import GaussianProposal, HamiltonianProposal, LangevinProposal, make_proposal
from lightning_vfe.sampling.random import WalkerRandom
from tests.sampling.test_electron_operations import SYSTEM, WIDTH, make_target, make_walkers

CELL = PeriodicCell(num_atoms=1, rs=2.0)
WAVE = 2 * math.pi / CELL.length


class Well:
    """kappa cos(k x): a density whose kappa is the tensor that it reads."""

    def __init__(self, kappa):
        self.kappa = kappa

    def __call__(self, positions):
        return self.kappa * torch.cos(WAVE * positions).sum(dim=(-1, -2))

    def tensors(self):
        return [self.kappa]

    def clone(self):
        return Well(self.kappa.clone())


@pytest.fixture
def recordings(monkeypatch):
    """A machine that records: repeating is to run the body again. Gives the list of what was recorded."""
    bodies = []

    def record(body, device):
        bodies.append(body)
        return body

    monkeypatch.setattr(recorded, "can_record", lambda device: True)
    monkeypatch.setattr(recorded, "record", record)
    monkeypatch.setattr(recorded, "_recorded", type(recorded._recorded)())
    return bodies


def run(log_prob, positions, num_steps=7, rule=None, width=WIDTH, seed=1, wrap=SYSTEM.cell.wrap):
    rule = rule or GaussianProposal()
    state = rule.evaluate(log_prob, positions)
    return metropolis(log_prob, state, rule, torch.tensor(width), num_steps, WalkerRandom([0, 1], seed), wrap)


def assert_same(first, second):
    (state, accepted), (other, others) = first, second
    assert torch.equal(state.positions, other.positions)
    assert torch.equal(state.log_prob, other.log_prob)
    assert torch.equal(state.displacement, other.displacement)
    assert (state.gradient is None) == (other.gradient is None)
    assert state.gradient is None or torch.equal(state.gradient, other.gradient)
    assert torch.equal(accepted, others)


@pytest.mark.parametrize("rule", ["gaussian", "langevin", "hamiltonian"])
@pytest.mark.parametrize("dtype", [None, torch.float32], ids=["float64", "float32"])
def test_the_same_chains_as_plain_moves(dtype, rule, recordings, monkeypatch):
    """Two sweeps with other protons, parameters and widths, and one recording."""
    walkers, found, rule = make_walkers(4, 3), [], make_proposal(rule)
    targets = [make_target(dtype)(walkers) for walkers in (walkers, make_walkers(4, 3))]
    walkers["protons"] = walkers.protons + 0.3
    targets.append(make_target(dtype)(walkers))
    for number, target in enumerate(targets):
        found.append(run(target, walkers.electrons, rule=rule, width=0.05 + 0.03 * number, seed=number))
    assert len(recordings) == 1
    monkeypatch.setattr(recorded, "can_record", lambda device: False)
    for number, target in enumerate(targets):
        assert_same(run(target, walkers.electrons, rule=rule, width=0.05 + 0.03 * number, seed=number), found[number])
    assert found[0][1].sum() > 0


def test_other_shapes_are_recorded_anew_and_few_are_kept(recordings):
    for count in (4, 6, 8, 8, 4):
        run(Well(torch.tensor(2.0)), torch.rand(count, 1, 3), wrap=CELL.wrap)
    assert len(recordings) == 4
    assert len(recorded._recorded) == recorded.KEPT


@pytest.mark.parametrize("rule", ["gaussian", "hamiltonian"])
def test_results_stay_when_the_memory_is_used_again(rule, recordings):
    well, start, rule = Well(torch.tensor(2.0)), torch.rand(4, 1, 3), make_proposal(rule)
    state, accepted = run(well, start, rule=rule, wrap=CELL.wrap)
    own = [x for x in (state.positions, state.log_prob, state.gradient, accepted) if x is not None]
    kept = [x.clone() for x in own]
    run(well, start + 0.5, rule=rule, wrap=CELL.wrap, seed=3)
    assert len(recordings) == 1
    assert all(torch.equal(*pair) for pair in zip(kept, own, strict=True))


def test_rules_of_other_settings_are_recorded_anew(recordings):
    well, start = Well(torch.tensor(2.0)), torch.rand(4, 1, 3)
    rules = [LangevinProposal(), LangevinProposal(2.0), HamiltonianProposal(), HamiltonianProposal(3)]
    for number, rule in enumerate(rules, start=1):
        for _ in range(2):
            run(well, start, rule=rule, wrap=CELL.wrap)
        run(well, start, rule=copy.deepcopy(rule), wrap=CELL.wrap)
        assert len(recordings) == number


class Counting(GaussianProposal):
    """The host counts the moves, which a recording would not repeat."""

    calls = 0

    def __call__(self, log_prob, state, width, noise):
        self.calls += 1
        return super().__call__(log_prob, state, width, noise)


def test_a_rule_that_does_not_declare_it_is_not_recorded(recordings):
    rule = Counting()
    run(Well(torch.tensor(2.0)), torch.rand(4, 1, 3), num_steps=7, rule=rule, wrap=CELL.wrap)
    assert not recordings
    assert rule.calls == 7


def test_a_failure_is_said_once_and_costs_time_only(recordings, monkeypatch):
    def fail(body, device):
        body()
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(recorded, "record", fail)
    well, start = Well(torch.tensor(2.0)), torch.rand(4, 1, 3)
    with pytest.warns(UserWarning, match="costs time only: operation not permitted when stream is capturing$"):
        first = run(well, start, wrap=CELL.wrap)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = run(well, start, wrap=CELL.wrap)
    assert_same(first, second)


def test_recorded_chains_sample_the_exact_distribution(recordings, monkeypatch):
    """Von Mises, <cos> = I_1 / I_0, with random numbers that come in many parts."""
    monkeypatch.setattr(random_module, "MOST_NUMBERS", 2000)
    kappa, rule, random, means = 2.0, GaussianProposal(), WalkerRandom(range(4), 1), []
    well = Well(torch.tensor(kappa))
    state = rule.evaluate(well, WalkerRandom([0], 5).uniform((240, 2, 3)) * CELL.length)
    for _ in range(40):
        state, _ = metropolis(well, state, rule, torch.tensor(0.7), 11, random, CELL.wrap)
        means.append(torch.cos(WAVE * state.positions).mean(dim=(-1, -2)))
    chains = torch.stack(means[10:]).mean(0)  # independent of each other
    error = chains.std() / len(chains) ** 0.5
    assert len(recordings) == 1
    assert error < 0.01
    assert abs(chains.mean() - iv(1, kappa) / iv(0, kappa)) < 4 * error


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("rule", ["gaussian", "langevin", "hamiltonian"])
@pytest.mark.parametrize("dtype", [None, torch.float32], ids=["float64", "float32"])
def test_a_graph_gives_the_numbers_of_plain_moves(dtype, rule, monkeypatch):
    walkers = make_walkers(4, 3)
    walkers.fields = {name: value.cuda() for name, value in walkers.fields.items()}
    log_prob, rule, found = make_target(dtype, "cuda")(walkers), make_proposal(rule), []
    state = rule.evaluate(log_prob, walkers.electrons)
    for graph in (True, False):
        monkeypatch.setattr(recorded, "can_record", lambda device, graph=graph: graph)
        random, width = WalkerRandom([0, 1], 1, "cuda"), torch.tensor(WIDTH, device="cuda")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found.append(metropolis(log_prob, state, rule, width, 20, random, SYSTEM.cell.wrap))
    assert_same(*found)
