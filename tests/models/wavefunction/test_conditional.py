"""The density of the electrons at fixed protons: exact with cached features, and what float32 chains change."""

import pytest
import torch

from lightning_vfe.models.twin import Twin
from lightning_vfe.models.wavefunction.conditional import plain_log_prob
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.ewald import Ewald
from lightning_vfe.physics.local_energy import local_energy
from lightning_vfe.physics.system import System
from lightning_vfe.sampling.nested import NestedSampler
from lightning_vfe.sampling.random import WalkerRandom
from lightning_vfe.state.targets import electron_target
from tests.helpers.states import states_at
from tests.helpers.wavefunctions import GENERAL_TWIST, conditional_log_prob, make_wavefunction, random_configurations


@pytest.mark.parametrize("num_determinants", [1, 2])
def test_prepared_protons_change_nothing(num_determinants):
    cell = PeriodicCell(num_atoms=6, rs=1.3)
    wavefunction = make_wavefunction(cell, num_determinants=num_determinants)
    protons, electrons = random_configurations(cell, 3, 2)
    states = states_at(cell, 3, twist=GENERAL_TWIST)
    plain, merged = (make(wavefunction, protons[:, 0], states) for make in (plain_log_prob, conditional_log_prob))
    for shift in (0.0, 0.3):
        expected = 2.0 * wavefunction.log_psi(protons, electrons + shift, states.unsqueeze(1)).real
        assert torch.equal(plain(electrons + shift), expected)
        assert (merged(electrons + shift) - expected).abs().max() < 1e-12


def test_a_sweep_prepares_the_protons_once():
    cell, counts = PeriodicCell(num_atoms=4, rs=1.3), {"at": 0, "moves": 0}

    def target(walkers):
        counts["at"] += 1
        protons = walkers.protons.unsqueeze(1)

        def log_prob(electrons):
            counts["moves"] += 1
            return -((electrons - protons) ** 2).sum((-2, -1))

        return log_prob

    walkers, sampler = _walkers(cell, num_electron_steps=8)
    sampler.step(walkers, None, target, adapt=False)
    assert counts == {"at": 1, "moves": 9}


def _walkers(cell, num_electron_steps, num_walkers=2, num_electron_walkers=3):
    """Fresh walkers at a twist, and their sampler."""
    sampler = NestedSampler(System(cell.num_atoms), num_electron_steps=num_electron_steps)
    protons = random_configurations(cell, num_walkers, 1)[0][:, 0] / cell.rs
    states, stratum = states_at(cell, num_walkers, twist=GENERAL_TWIST), torch.zeros(num_walkers, dtype=torch.int64)
    return sampler.start(protons, states, stratum, num_electron_walkers, WalkerRandom([0], 1)), sampler


@torch.no_grad()
def test_float32_chains_do_not_change_the_energy():
    """The bias of <E> in a density p' = p exp(d) is at most std(E) std(d) to first order (Cauchy-Schwarz)."""
    cell = PeriodicCell(num_atoms=14, rs=1.25)
    wavefunction = make_wavefunction(cell, num_layers=4, single_width=32, pair_width=16, num_plane_waves=57)
    twins = {None: None, torch.float32: Twin(wavefunction, torch.float32)}
    electrons = {}
    for dtype, twin in twins.items():
        walkers, sampler = _walkers(cell, 40, num_walkers=4, num_electron_walkers=8)
        sampler.step(walkers, None, electron_target(wavefunction, twin), adapt=False)
        electrons[dtype] = walkers.electrons * cell.rs
    single = electrons[torch.float32]
    assert single.dtype == torch.float64  # only the networks run in float32, not the walkers
    # The same random numbers: the chains part only where a decision hung on the seventh digit.
    assert (single - electrons[None]).abs().amax((-2, -1)).lt(1e-9).double().mean() > 0.9
    protons, states, ewald = walkers.protons * cell.rs, walkers.states, Ewald(System(cell.num_atoms).cell)
    modules = [None, twins[torch.float32].module()]
    exact, rounded = (conditional_log_prob(wavefunction, protons, states, module)(single) for module in modules)
    difference = rounded - exact
    energy = local_energy(ewald, wavefunction.log_psi, protons, single, states).total.real
    bias_per_atom = float(energy.std() * difference.std()) / cell.num_atoms
    print(f"std of the rounding of ln|psi|^2 {float(difference.std()):.1e}, bias < {bias_per_atom:.1e} Ha per atom")
    assert difference.std() > 0, "nothing was rounded"
    assert difference.std() < 1e-4
    assert bias_per_atom < 1e-4
