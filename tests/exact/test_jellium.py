"""Jellium of free electrons: kinetic and Hartree-Fock energies of Slater determinants of plane waves are known."""

import itertools
import math

import pytest
import torch

from lightning_vfe.models.wavefunction.jellium import JelliumWavefunction
from lightning_vfe.physics.ewald import Ewald
from lightning_vfe.physics.local_energy import local_energy
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.strata import Strata
from lightning_vfe.physics.system import System
from lightning_vfe.sampling.nested import NestedSampler
from lightning_vfe.state.variational_state import VariationalState

MADELUNG = -2.8372974795
"""Of the simple cubic lattice: a charge, its images and the background have the energy MADELUNG / (2 L)."""
HARTREE_FOCK = {1.0: 0.6065343, 2.0: 0.0230389, 5.0: -0.0580392, 10.0: -0.0402287}
"""Of N = 14 at Gamma, in Ha per electron, by rs."""
GAMMA = (0.0, 0.0, 0.0)
TWIST = (0.25, 0.1, -0.3)


def filled_waves(num: int, rs: float, twist: tuple[float, ...]) -> torch.Tensor:
    """The num / 2 lowest k + k_twist in 1/bohr, found among all in a cube.  # (num / 2, 3)"""
    length = (4.0 * math.pi * num / 3.0) ** (1.0 / 3.0) * rs
    waves = torch.tensor(list(itertools.product(range(-4, 5), repeat=3)), dtype=torch.float64) + torch.tensor(twist)
    lowest = waves.square().sum(-1).argsort(stable=True)[: num // 2]
    return 2.0 * math.pi / length * waves[lowest]


def free_electrons(num: int, rs: float, twist: tuple[float, ...] = GAMMA) -> tuple[float, float]:
    """Kinetic energy, and exchange with the Madelung energy, of plane waves, per electron in Ha.

    V = sum_{k < k'} of one spin, both spins: -(4 pi / L^3) / |k - k'|^2, and N times MADELUNG / (2 L).
    """
    length = (4.0 * math.pi * num / 3.0) ** (1.0 / 3.0) * rs
    waves = filled_waves(num, rs, twist)
    kinetic = float(waves.square().sum())  # 1/2 k^2 of two spins
    first, second = torch.triu_indices(num // 2, num // 2, offset=1)
    exchange = 2.0 * float((-4.0 * math.pi / length**3 / (waves[first] - waves[second]).square().sum(-1)).sum())
    return kinetic / num, exchange / num + MADELUNG / (2.0 * length)


def determinantal_samples(
    waves: torch.Tensor, length: float, num_samples: int, generator: torch.Generator
) -> torch.Tensor:
    """Independent electrons of one spin with the density |det exp(i k r)|^2, one after the other, by rejection.

    The next electron has the density of the projector of the waves on the complement of those of the electrons before.
    Source: Hough, Krishnapur, Peres and Virag, Probab. Surv. 3, 206 (2006).

    Returns:
        # (samples, electrons, 3)
    """
    num = len(waves)
    basis = torch.zeros(num_samples, num, 0, dtype=torch.complex128)  # of the electrons so far, orthonormal
    electrons = []
    for _ in range(num):
        place, open_ones = torch.zeros(num_samples, 3, dtype=torch.float64), torch.arange(num_samples)
        while len(open_ones):
            trial = length * torch.rand(len(open_ones), 3, generator=generator, dtype=torch.float64)
            vector = torch.exp(1j * (trial @ waves.T)) / math.sqrt(num)
            inside = (basis[open_ones].mH @ vector.unsqueeze(-1)).squeeze(-1).abs().square().sum(-1)
            accepted = torch.rand(len(open_ones), generator=generator, dtype=torch.float64) < 1.0 - inside
            place[open_ones[accepted]] = trial[accepted]
            open_ones = open_ones[~accepted]
        vector = torch.exp(1j * (place @ waves.T)).unsqueeze(-1)
        vector = vector - basis @ (basis.mH @ vector)
        basis = torch.cat([basis, vector / torch.linalg.vector_norm(vector, dim=1, keepdim=True)], dim=-1)
        electrons.append(place)
    return torch.stack(electrons, dim=1)


def plane_wave_state(twist: tuple[float, ...]) -> VariationalState:
    """N = 14 at rs = 5 with networks and Jastrow factor switched off."""
    torch.manual_seed(0)
    system = System(14, protons="none")
    strata = Strata.of(5.0, protons="none", twists=[list(twist)])
    psi = JelliumWavefunction(system, strata.reference, num_layers=1, single_width=2, pair_width=2)
    with torch.no_grad():
        for parameter in psi.parameters():
            parameter.zero_()
        psi.jastrow.log_scales.fill_(-40.0)
    sampler = NestedSampler(system, num_electron_steps=12)
    counts = {"num_proton_walkers": 8, "num_electron_walkers": 16, "num_groups": 8}
    settings = {"equilibration_sweeps": 25, "chain_precision": "float32"}
    return VariationalState(system, strata, psi, None, sampler, **counts, **settings)


@pytest.mark.parametrize(("rs", "expected"), HARTREE_FOCK.items())
def test_the_sum_over_plane_waves_gives_the_known_energies(rs: float, expected: float) -> None:
    assert sum(free_electrons(14, rs)) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("twist", [GAMMA, TWIST])
def test_the_wavefunction_without_networks_is_the_slater_determinant(twist: tuple[float, ...]) -> None:
    """The same psi, and the local kinetic energy is that of the plane waves everywhere."""
    state = plane_wave_state(twist)
    batch, waves = state.current(), filled_waves(14, 5.0, twist)
    local = local_energy(state.ewald, state.wavefunction, batch.protons, batch.electrons, batch.states).kinetic / 14
    torch.testing.assert_close(local, torch.full_like(local, free_electrons(14, 5.0, twist)[0]), rtol=1e-9, atol=1e-12)
    orbitals = torch.exp(1j * (batch.electrons @ waves.T))
    exact = sum(torch.linalg.slogdet(orbitals[:, :, spin]).logabsdet for spin in (slice(7), slice(7, 14)))
    found = state.wavefunction(batch.protons.unsqueeze(1), batch.electrons, batch.states.unsqueeze(1)).real
    torch.testing.assert_close(found - found[0, 0], exact - exact[0, 0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("twist", [GAMMA, TWIST])
def test_independent_samples_have_the_hartree_fock_energy(twist: tuple[float, ...]) -> None:
    """V_ee with Madelung and background terms, over electrons drawn without a Markov chain."""
    generator, num_samples = torch.Generator().manual_seed(1), 8000
    waves = filled_waves(14, 1.0, twist)
    length = System(14).cell.length
    spins = [determinantal_samples(waves, length, num_samples, generator) for _ in range(2)]
    samples = Ewald(System(14).cell).proton_energy(torch.cat(spins, dim=1)) / 14
    value, error = float(samples.mean()), float(samples.std()) / math.sqrt(num_samples)
    print(f"V = {value:.5f} +- {error:.5f}, exact {free_electrons(14, 1.0, twist)[1]:.5f}")
    assert error < 0.004
    assert abs(value - free_electrons(14, 1.0, twist)[1]) < 4.0 * error
    for rs, expected in HARTREE_FOCK.items() if twist == GAMMA else ():
        # in units of rs the determinant is the same at all densities
        assert abs(value / rs + free_electrons(14, rs)[0] - expected) < 4.0 * error / rs


def test_chains_have_the_hartree_fock_energy() -> None:
    state = plane_wave_state(GAMMA)
    found = state.expect(lambda batch: state.ewald.proton_energy(batch.electrons / 5.0) / 5.0 / 14, num_sweeps=30)[0]
    print(f"V = {found.value:.5f} +- {found.error:.5f}")
    assert found.error < 2e-3
    assert abs(found.value - free_electrons(14, 5.0)[1]) < 4.0 * found.error


def test_coulomb_energy_of_one_lattice() -> None:
    """One electron in each cell is the simple cubic Wigner crystal: V = MADELUNG / (2 L)."""
    cell = System(1, protons="none").cell
    energy = Ewald(cell).proton_energy(torch.rand(1, 3), torch.tensor(3.0)) / 3.0
    assert float(energy) == pytest.approx(MADELUNG / (2.0 * 3.0 * cell.length), rel=1e-7)


def test_local_energy_has_the_terms_of_electrons_alone() -> None:
    """V_pp = V_pe = 0, and the densities scale."""
    system = System(2, protons="none")
    psi, ewald = JelliumWavefunction(system, StatePoint(2.0), 1, 1, 4, 4), Ewald(system.cell)
    strata = Strata.of([2.0, 4.0], protons="none")
    states = strata.walker_states(torch.tensor([0, 1]), like=torch.zeros(()))
    electrons = torch.rand(2, 3, 2, 3) * system.cell.length
    found = local_energy(ewald, psi, torch.zeros(2, 0, 3), electrons * states.rs[:, None, None, None], states)
    expected = ewald.proton_energy(electrons) / states.rs[:, None]
    torch.testing.assert_close(found.v_ee, expected)
    assert not found.v_pp.any()
    assert not found.v_pe.any()
    torch.testing.assert_close(found.total, found.kinetic + found.v_ee)
