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
TWIST = (0.25, 0.1, -0.3)


def free_electrons(num: int, rs: float, twist: tuple[float, ...] = (0.0, 0.0, 0.0)) -> tuple[float, float]:
    """Kinetic energy, and exchange with the Madelung energy, of plane waves, per electron in Ha.

    V = sum_{k < k'} of one spin, both spins: -(4 pi / L^3) / |k - k'|^2, and N times MADELUNG / (2 L).
    """
    length = (4.0 * math.pi * num / 3.0) ** (1.0 / 3.0) * rs
    grid = itertools.product(range(-4, 5), repeat=3)
    waves = sorted(
        ([2.0 * math.pi / length * (n + t) for n, t in zip(vector, twist, strict=True)] for vector in grid),
        key=lambda k: sum(component**2 for component in k),
    )[: num // 2]
    kinetic = 2.0 * sum(0.5 * sum(component**2 for component in k) for k in waves)
    exchange = 2.0 * sum(
        -4.0 * math.pi / length**3 / sum((a - b) ** 2 for a, b in zip(k, q, strict=True))
        for k, q in itertools.combinations(waves, 2)
    )
    return kinetic / num, exchange / num + MADELUNG / (2.0 * length)


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


@pytest.mark.parametrize("twist", [(0.0, 0.0, 0.0), TWIST])
def test_a_determinant_of_plane_waves_has_the_hartree_fock_energy(twist: tuple[float, ...]) -> None:
    """The local kinetic energy is constant; V_ee, with Madelung and background terms, is a mean over |psi|^2."""
    state = plane_wave_state(twist)
    kinetic, coulomb = free_electrons(14, 5.0, twist)
    local = state.energies().electronic.kinetic / 14
    torch.testing.assert_close(local, torch.full_like(local, kinetic), rtol=1e-9, atol=1e-12)
    ewald = state.ewald

    def v_ee(batch: object) -> torch.Tensor:
        return ewald.proton_energy(batch.electrons / 5.0) / 5.0 / 14  # type: ignore[attr-defined]

    found = state.expect(v_ee, num_sweeps=40)[0]
    print(f"V = {found.value:.5f} +- {found.error:.5f}, exact {coulomb:.5f}")
    assert found.error < 1e-3
    assert abs(found.value - coulomb) < 4.0 * found.error
    if twist == (0.0, 0.0, 0.0):
        for rs, expected in HARTREE_FOCK.items():  # in units of rs the determinant is the same at all densities
            energy = (found.value * 5.0) / rs + kinetic * (5.0 / rs) ** 2
            assert abs(energy - expected) < 4.0 * found.error * 5.0 / rs


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
