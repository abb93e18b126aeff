"""The wavefunction of molecules: symmetries, cusps and derivatives far from its start, and molecules at its start."""

import math

import pytest
import torch
from torch import Tensor

from lightning_vfe.errors import SettingError
from lightning_vfe.models.wavefunction.molecular import AtomicOrbitals, MolecularWavefunction
from lightning_vfe.physics.ewald import Ewald
from lightning_vfe.physics.kinetic import kinetic_energy_nested
from lightning_vfe.physics.local_energy import kinetic_energies, local_energy
from lightning_vfe.physics.state_point import StatePoint, WalkerStates
from lightning_vfe.physics.system import System
from tests.helpers.wavefunctions import GAMMA, GENERAL_TWIST, trained_like

NUM = 4
SYSTEM = System(NUM)
RS = 3.0
LENGTH = RS * SYSTEM.cell.length
TWISTS = torch.tensor([GAMMA, GENERAL_TWIST, (0.5, 0.0, 0.5)], dtype=torch.float64)
STATES = WalkerStates(torch.full((3,), RS, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), TWISTS)


@pytest.fixture
def psi() -> MolecularWavefunction:
    sizes = {"num_determinants": 2, "num_layers": 2, "single_width": 6, "pair_width": 4}
    wavefunction = MolecularWavefunction(SYSTEM, StatePoint(2.8), **sizes)
    trained_like(wavefunction, seed=1)
    return wavefunction


@pytest.fixture
def particles() -> tuple[Tensor, Tensor]:
    """Protons (3, N, 3) and electrons (3, 5, N, 3)."""
    generator = torch.Generator().manual_seed(0)
    protons = LENGTH * torch.rand(3, NUM, 3, generator=generator, dtype=torch.float64)
    return protons, LENGTH * torch.rand(3, 5, NUM, 3, generator=generator, dtype=torch.float64)


def log_psi(psi: MolecularWavefunction, protons: Tensor, electrons: Tensor) -> Tensor:
    with torch.no_grad():
        return psi(protons.unsqueeze(1), electrons, STATES.unsqueeze(1))


def test_exchanges_and_translations(psi: MolecularWavefunction, particles: tuple[Tensor, Tensor]) -> None:
    protons, electrons = particles
    one, start = torch.ones(3, 5, dtype=torch.complex128), log_psi(psi, *particles)

    def ratio(x: Tensor, r: Tensor) -> Tensor:
        return torch.exp(log_psi(psi, x, r) - start)

    torch.testing.assert_close(ratio(protons, electrons[:, :, [1, 0, 2, 3]]), -one)
    torch.testing.assert_close(ratio(protons, electrons[:, :, [0, 1, 3, 2]]), -one)
    torch.testing.assert_close(ratio(protons, electrons[:, :, [2, 3, 0, 1]]), one)  # all spins
    torch.testing.assert_close(ratio(protons[:, [2, 0, 3, 1]], electrons), one)
    moved = electrons.clone()
    moved[:, :, 2, 0] += LENGTH
    phase = torch.polar(torch.ones(3), 2.0 * torch.pi * TWISTS[:, 0]).unsqueeze(1)
    torch.testing.assert_close(ratio(protons, moved), phase.expand(3, 5).to(one))
    image = protons.clone()
    image[:, 1, 2] -= LENGTH
    torch.testing.assert_close(ratio(image, electrons), one)
    shift = torch.tensor([0.3, -1.1, 0.7])
    torch.testing.assert_close(ratio(protons + shift, electrons + shift).abs(), one.real)


def test_kinetic_energy(psi: MolecularWavefunction, particles: tuple[Tensor, Tensor]) -> None:
    """Derivatives carried forward are those of nested differentiation."""
    protons, electrons = particles
    carried = kinetic_energies(psi, protons, electrons, STATES)
    nested = kinetic_energy_nested(lambda r: psi(protons.unsqueeze(1), r, STATES.unsqueeze(1)), electrons)
    torch.testing.assert_close(carried, nested)


def test_what_protons_alone_decide_can_be_prepared(
    psi: MolecularWavefunction, particles: tuple[Tensor, Tensor]
) -> None:
    protons, electrons = particles
    states = STATES.unsqueeze(1)
    fixed = psi.prepare(protons.unsqueeze(1), states)
    torch.testing.assert_close(psi(protons.unsqueeze(1), electrons, states, fixed), log_psi(psi, *particles))
    single = fixed.to(torch.float32)  # as the moves of the electrons take it
    rounded = psi.float()(protons.unsqueeze(1).float(), electrons.float(), states.to(torch.float32), single)
    torch.testing.assert_close(rounded.real.double(), log_psi(psi.double(), *particles).real, rtol=0.0, atol=1e-3)


@pytest.mark.parametrize("kind", ["proton", "same spin", "opposite spins"])
def test_cusps(psi: MolecularWavefunction, particles: tuple[Tensor, Tensor], kind: str) -> None:
    """Slope of ln|psi| at contact, averaged over opposite directions and without the node; E_loc stays bounded."""
    protons, electrons = particles
    place = {"proton": protons[:, 1:2], "same spin": electrons[:, :, 1], "opposite spins": electrons[:, :, 2]}[kind]
    cusp = {"proton": -1.0, "same spin": 0.25, "opposite spins": 0.5}[kind]
    direction = torch.nn.functional.normalize(torch.tensor([1.0, 0.4, -0.7], dtype=torch.float64), dim=0)

    def at(distance: float) -> Tensor:
        positions = electrons.clone()
        positions[:, :, 0] = place + distance * direction
        return positions

    def log_abs(distance: float) -> Tensor:
        values = [log_psi(psi, protons, at(sign * distance)).real for sign in (1.0, -1.0)]
        return 0.5 * (values[0] + values[1]) - (math.log(distance) if kind == "same spin" else 0.0)

    step = 2e-4
    near, middle, far = (log_abs(multiple * step) for multiple in (1, 2, 4))
    slopes = (2.0 * (middle - near) - 0.5 * (far - middle)) / step
    torch.testing.assert_close(slopes, torch.full_like(slopes, cusp), rtol=0.0, atol=1e-4)
    found = [local_energy(Ewald(SYSTEM.cell), psi, protons, at(d), STATES).total for d in (1e-3, 1e-4)]
    # what does not cancel would grow by 9000 cusps' worth of Ha
    assert (found[1] - found[0]).abs().max() < 1.0


def test_far_molecules_fill_their_bonds() -> None:
    """F of two molecules is that of each one: (1, 1) (1, 1)^T / 2, the bonding state."""
    distance = torch.full((4, 4), 12.0, dtype=torch.float64)
    distance[0, 1] = distance[1, 0] = distance[2, 3] = distance[3, 2] = 1.4
    distance.fill_diagonal_(0.0)
    bond = torch.full((2, 2), 0.5, dtype=torch.float64)
    pairing = AtomicOrbitals(1, 2).double().pairing(distance)
    torch.testing.assert_close(pairing[0], torch.block_diag(bond, bond), rtol=0.0, atol=1e-2)


def test_a_lone_atom_starts_exact() -> None:
    """The orbital of a proton times its part of the Jastrow factor is exp(-d)."""
    psi = MolecularWavefunction(System(2), StatePoint(50.0), 1, 1, 2, 2).double()
    distance = torch.tensor([0.1, 0.5, 1.0, 3.0], dtype=torch.float64)
    pairs = torch.zeros(4, 2, 2, dtype=torch.float64)
    pairs[:, 0, 0] = distance  # the first electron and the first proton
    one = torch.zeros(1, 2, 2, dtype=torch.float64)
    one[0, 0, 0] = 1.0  # the pair function of this proton alone
    with torch.no_grad():
        jastrow = psi.jastrow(pairs, torch.zeros_like(pairs), torch.ones(4, dtype=torch.float64))
        log_psi = jastrow + psi.orbitals(pairs, one).flatten().log()
    torch.testing.assert_close(log_psi - log_psi[0], distance[0] - distance)


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(SettingError, match="must be even"):
        MolecularWavefunction(System(3), StatePoint(4.0))
    with pytest.raises(SettingError, match="must be 2"):
        MolecularWavefunction(System(6, num_up=4), StatePoint(4.0))
    with pytest.raises(SettingError, match="pair_width"):
        MolecularWavefunction(SYSTEM, StatePoint(4.0), pair_width=0)
