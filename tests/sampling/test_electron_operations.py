"""What an electron move costs: operations, whatever the number of walkers, and nothing that the host waits for."""

import pytest
import torch

from lightning_vfe.models.twin import Twin
from lightning_vfe.models.wavefunction.molecular import MolecularWavefunction
from lightning_vfe.models.wavefunction.wavefunction import GeminalWavefunction
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.system import System
from lightning_vfe.sampling.electron_moves import move_electrons
from lightning_vfe.sampling.metropolis import metropolis
from lightning_vfe.sampling.proposals import GaussianProposal, PreparedLogProb
from lightning_vfe.sampling.random import WalkerRandom
from lightning_vfe.sampling.walkers import Walkers
from lightning_vfe.state.targets import electron_target
from tests.helpers.matrices import WAITING, Dispatched
from tests.helpers.states import states_at
from tests.helpers.wavefunctions import GENERAL_TWIST, random_configurations, trained_like

MOST = 90
NUM_ATOMS = 14
SYSTEM, CELL = System(NUM_ATOMS), PeriodicCell(NUM_ATOMS, 1.25)
WIDTH = 0.1


def make_walkers(num_walkers, num_electron_walkers, groups=(0, 1)):
    protons, electrons = random_configurations(CELL, num_walkers, num_electron_walkers)
    states = states_at(CELL, num_walkers, twist=GENERAL_TWIST)
    fields = {"protons": protons.squeeze(1) / CELL.rs, "electrons": electrons / CELL.rs}
    fields |= {"rs": states.rs, "kT": states.kT, "twist": states.twist, "stratum": torch.zeros(num_walkers).long()}
    return Walkers(fields, {"electrons": torch.tensor(WIDTH).log()}, WalkerRandom(groups, 1))


def make_target(dtype=None, device="cpu", kind=GeminalWavefunction):
    torch.manual_seed(0)
    wavefunction = trained_like(kind(SYSTEM, StatePoint(1.3)), size=0.05).to(device)
    return electron_target(wavefunction, None if dtype is None else Twin(wavefunction, dtype))


def operations(run, first=2, second=5):
    """Operations of one more move, by name."""
    counts = []
    for number in (first, second):
        with Dispatched() as dispatched:
            run(number)
        counts.append(dispatched.names)
    names = {name: (count - counts[0][name]) / (second - first) for name, count in counts[1].items()}
    return {name: count for name, count in names.items() if count}


def count_moves(walkers, target):
    log_prob, rule = target(walkers), GaussianProposal()
    state, width = rule.evaluate(log_prob, walkers.electrons), torch.tensor(WIDTH)
    wrap = SYSTEM.cell.wrap
    return operations(lambda number: metropolis(log_prob, state, rule, width, number, walkers.random, wrap))


@pytest.mark.parametrize(("kind", "most"), [(GeminalWavefunction, MOST), (MolecularWavefunction, MOST + 10)])
@pytest.mark.parametrize("dtype", [None, torch.float32], ids=["float64", "float32"])
def test_operations_of_a_move(dtype, kind, most, record_property):
    target = make_target(dtype, kind=kind)
    few, many = (count_moves(make_walkers(*sizes), target) for sizes in ((2, 1), (8, 6)))
    total = sum(few.values())
    record_property("operations", total)
    print(f"{total:g} operations a move: {few}")
    assert total <= most
    assert few == many, "the operations depend on the number of walkers"
    assert not set(few) & set(WAITING)


def test_a_sweep_of_many_walkers_takes_no_more_operations():
    target, rule, counts = make_target(torch.float32), GaussianProposal(), []
    for sizes in ((2, 2), (8, 6)):
        walkers = make_walkers(*sizes)
        with Dispatched() as dispatched:
            move_electrons(walkers, target, rule, torch.tensor(WIDTH), 8, SYSTEM.cell)
        assert not set(dispatched.names) & set(WAITING)
        counts.append(dispatched.names)
    assert counts[0] == counts[1]


def test_the_target_is_prepared():
    walkers = make_walkers(2, 3)
    log_prob = make_target()(walkers)
    assert isinstance(log_prob, PreparedLogProb)
    assert log_prob(walkers.electrons).shape == (2, 3)
