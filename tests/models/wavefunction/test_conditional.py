"""The density of the electrons at fixed protons: exact with cached features, and what float32 chains change."""

import pytest
import torch

from lightning_vfe.models.wavefunction.conditional import conditional_log_prob
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.ewald import Ewald
from lightning_vfe.physics.local_energy import local_energy
from lightning_vfe.sampling.electron_moves import ElectronDensity
from lightning_vfe.sampling.nested import NestedSampler
from lightning_vfe.sampling.random import WalkerRandom
from tests.helpers.wavefunctions import GENERAL_TWIST, make_wavefunction, random_configurations


@pytest.mark.parametrize("num_determinants", [1, 2])
def test_prepared_protons_change_nothing(num_determinants):
    cell = PeriodicCell(num_atoms=6, rs=1.3)
    wavefunction = make_wavefunction(cell, num_determinants=num_determinants)
    protons, electrons = random_configurations(cell, 3, 2)
    twists = torch.tensor(GENERAL_TWIST).expand(3, 3)
    log_prob = conditional_log_prob(wavefunction, protons[:, 0], twists)
    for shift in (0.0, 0.3):
        expected = 2.0 * wavefunction.log_psi(protons, electrons + shift, twists.unsqueeze(1)).real
        assert torch.equal(log_prob(electrons + shift), expected)


def test_a_sweep_prepares_the_protons_once():
    cell, counts = PeriodicCell(num_atoms=4, rs=1.3), {"at": 0, "moves": 0}

    def at(protons):
        counts["at"] += 1

        def log_prob(electrons):
            counts["moves"] += 1
            return -((electrons - protons.unsqueeze(1)) ** 2).sum((-2, -1))

        return log_prob

    sampler = NestedSampler(cell, num_electron_steps=8)
    protons = random_configurations(cell, 2, 1)[0][:, 0]
    walkers = sampler.start(protons, torch.zeros(1, 3), 3, WalkerRandom([0], 1))
    sampler.step(walkers, None, ElectronDensity(at), adapt=False)
    assert counts == {"at": 1, "moves": 9}


@torch.no_grad()
def test_float32_chains_do_not_change_the_energy():
    """The bias of <E> in a density p' = p exp(d) is at most std(E) std(d) to first order (Cauchy-Schwarz)."""
    cell = PeriodicCell(num_atoms=14, rs=1.25)
    wavefunction = make_wavefunction(cell, num_layers=4, single_width=32, pair_width=16, num_plane_waves=57)
    protons = random_configurations(cell, 4, 1)[0][:, 0]
    twists = torch.tensor(GENERAL_TWIST).expand(4, 3)
    sampler = NestedSampler(cell, num_electron_steps=40)
    walkers = {}
    for dtype in (None, torch.float32):
        state = sampler.start(protons, torch.tensor([GENERAL_TWIST]), 8, WalkerRandom([0], 1))
        density = ElectronDensity(lambda x, dtype=dtype: conditional_log_prob(wavefunction, x, twists, dtype))
        sampler.step(state, None, density, adapt=False)
        walkers[dtype] = state
    single = walkers[torch.float32].electrons
    assert single.dtype == torch.float64  # only the networks run in float32, not the walkers
    # The same random numbers: the chains part only where a decision hung on the seventh digit.
    assert (single - walkers[None].electrons).abs().amax((-2, -1)).lt(1e-9).double().mean() > 0.9
    exact, rounded = (conditional_log_prob(wavefunction, protons, twists, dtype)(single) for dtype in walkers)
    difference = rounded - exact
    energy = local_energy(Ewald(cell), wavefunction.log_psi, protons, single, twists).total.real
    bias_per_atom = float(energy.std() * difference.std()) / cell.num_atoms
    print(f"std of the rounding of ln|psi|^2 {float(difference.std()):.1e}, bias < {bias_per_atom:.1e} Ha per atom")
    assert difference.std() < 1e-4 and bias_per_atom < 1e-4
