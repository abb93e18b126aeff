"""A step dispatches as many operations for many walkers as for few, and none that waits for the device."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from lightning_vfe.physics.chunking import set_max_chunk_elements
from lightning_vfe.sampling.electron_moves import move_electrons
from lightning_vfe.sampling.proposals import make_proposal
from lightning_vfe.sampling.random import WalkerRandom
from lightning_vfe.state.variational_state import VariationalState
from tests.helpers.matrices import WAITING, Dispatched
from tests.helpers.variational import build_state

FEW, MANY = 16, 1024
NUM_MOVES = 4
Work = Callable[[VariationalState], object]


@pytest.fixture(autouse=True)
def memory_for_all():
    """As on an accelerator with memory for all walkers at once."""
    set_max_chunk_elements(2**40)
    yield
    set_max_chunk_elements(None)


@pytest.fixture
def state():
    return build_state(trained=True, num_electron_walkers=2, chain_precision="float32")


def count_operations(state: VariationalState, work: Work) -> Dispatched:
    """Those of many proton walkers, which are those of few and do not wait."""
    found = []
    for num_walkers in (FEW, FEW, MANY):  # what is prepared once does not count
        random = WalkerRandom(range(4), seed=1)
        protons = state.system.cell.length * random.uniform((num_walkers, state.system.num_atoms, 3))
        state.put(protons, torch.zeros(num_walkers, dtype=torch.int64), random)
        with Dispatched() as dispatched:
            work(state)
        found.append(dispatched)
    _, few, many = found
    assert few.names == many.names
    assert not set(many.names) & set(WAITING)
    return many


@pytest.mark.parametrize("rule", ["gaussian", "langevin", "hamiltonian"])
def test_a_sweep_of_the_electrons(rule, state):
    proposal = make_proposal(rule)

    def sweep(state: VariationalState) -> None:
        target = state.electron_target()
        move_electrons(state.place(), target, proposal, torch.tensor(0.1), NUM_MOVES, state.system.cell)

    names = count_operations(state, sweep).names
    gradients = {"gaussian": 0, "langevin": NUM_MOVES, "hamiltonian": 2 * NUM_MOVES}[rule]
    assert names["tanh_backward"] == 2 * (gradients + (gradients > 0)), "the backward passes are counted"


def test_energies(state):
    """Kinetic energy, Ewald sums, and the terms of ln p."""
    count_operations(state, lambda state: state.energies(state.current()))


def test_scores(state):
    """Of both networks."""
    names = count_operations(state, lambda state: state.scores(state.current())).names
    assert names["tanh_backward"] > 0
