"""What the wavefunction of jellium must do, with parameters far from their start."""

import itertools

import pytest
import torch
from torch import Tensor

from lightning_vfe.errors import SettingError
from lightning_vfe.models.wavefunction.jellium import JelliumWavefunction
from lightning_vfe.physics.ewald import Ewald
from lightning_vfe.physics.kinetic import kinetic_energy_nested
from lightning_vfe.physics.local_energy import kinetic_energies, local_energy
from lightning_vfe.physics.state_point import StatePoint, WalkerStates
from lightning_vfe.physics.system import System
from tests.helpers.wavefunctions import GAMMA, GENERAL_TWIST, trained_like

NUM = 4
SYSTEM = System(NUM, protons="none")
LENGTH = 2.0 * SYSTEM.cell.length
TWISTS = torch.tensor([GAMMA, GENERAL_TWIST, (0.5, 0.0, 0.5)], dtype=torch.float64)
STATES = WalkerStates(torch.full((3,), 2.0, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), TWISTS)


@pytest.fixture
def psi() -> JelliumWavefunction:
    sizes = {"num_determinants": 2, "num_layers": 2, "single_width": 6, "pair_width": 4}
    wavefunction = JelliumWavefunction(SYSTEM, StatePoint(1.8), **sizes)
    trained_like(wavefunction, seed=1)
    return wavefunction


@pytest.fixture
def electrons() -> Tensor:
    return LENGTH * torch.rand(3, 5, NUM, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def ratio(psi: JelliumWavefunction, new: Tensor, old: Tensor) -> Tensor:
    """psi(new) / psi(old).  # (3, 5)"""
    with torch.no_grad():
        values = [psi(torch.zeros(3, 1, 0, 3), positions, STATES.unsqueeze(1)) for positions in (new, old)]
    return torch.exp(values[0] - values[1])


def test_exchanges_and_translations(psi: JelliumWavefunction, electrons: Tensor) -> None:
    one = torch.ones(3, 5, dtype=torch.complex128)
    torch.testing.assert_close(ratio(psi, electrons[:, :, [1, 0, 2, 3]], electrons), -one)
    torch.testing.assert_close(ratio(psi, electrons[:, :, [0, 1, 3, 2]], electrons), -one)
    torch.testing.assert_close(ratio(psi, electrons[:, :, [2, 3, 0, 1]], electrons), one)  # all spins
    shifted = ratio(psi, electrons + torch.tensor([0.3, -1.1, 0.7]), electrons)
    torch.testing.assert_close(shifted.abs(), one.real)  # the electrons have a total momentum
    moved = electrons.clone()
    moved[:, :, 2, 0] += LENGTH
    phase = torch.polar(torch.ones(3), 2.0 * torch.pi * TWISTS[:, 0]).unsqueeze(1)
    torch.testing.assert_close(ratio(psi, moved, electrons), phase.expand(3, 5).to(one))


def test_kinetic_energy(psi: JelliumWavefunction, electrons: Tensor) -> None:
    """Derivatives carried forward are those of nested differentiation."""
    carried = kinetic_energies(psi, torch.zeros(3, 0, 3), electrons, STATES)
    nested = kinetic_energy_nested(lambda r: psi(None, r, STATES.unsqueeze(1)), electrons)
    torch.testing.assert_close(carried, nested)


@pytest.mark.parametrize("num", [2, 6, 14, 38])
def test_the_lowest_plane_waves_are_filled(num: int) -> None:
    """Against a sort of far more vectors, for many twists."""
    system = System(num, protons="none")
    psi = JelliumWavefunction(system, StatePoint(2.0), 1, 1, 2, 2)
    twists = torch.rand(100, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64) - 0.5
    found = psi.wavevectors(WalkerStates(torch.full((100,), 2.0), torch.zeros(100), twists))
    grid = torch.tensor(list(itertools.product(range(-5, 6), repeat=3)), dtype=torch.float64)
    squares = (grid + twists.unsqueeze(1)).square().sum(-1).sort(dim=-1).values[:, : num // 2]
    unit = (torch.pi / system.cell.length) ** 2  # (2 pi / L)^2 at rs = 2
    torch.testing.assert_close(found.square().sum(-1).sort(dim=-1).values, unit * squares)
    assert all(len(waves.unique(dim=0)) == num // 2 for waves in found)


def test_a_common_translation_of_a_closed_shell() -> None:
    psi = trained_like(JelliumWavefunction(System(14, protons="none"), StatePoint(2.0), 1, 1, 4, 4), seed=3)
    states = WalkerStates(torch.tensor(2.0), torch.tensor(0.0), torch.zeros(3))
    electrons = 5.0 * torch.rand(3, 14, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        values = [psi(None, positions, states) for positions in (electrons, electrons + torch.tensor([0.3, -1.1, 0.7]))]
    torch.testing.assert_close(values[0].real, values[1].real)


@pytest.mark.parametrize(("partner", "cusp"), [(1, 0.25), (2, 0.5)], ids=["same spin", "opposite spins"])
def test_cusps(psi: JelliumWavefunction, electrons: Tensor, partner: int, cusp: float) -> None:
    """Slope of ln|psi| at contact, averaged over opposite directions and without the node; E_loc stays bounded."""
    direction = torch.nn.functional.normalize(torch.tensor([1.0, 0.4, -0.7], dtype=torch.float64), dim=0)

    def at(distance: float) -> Tensor:
        positions = electrons.clone()
        positions[:, :, 0] = positions[:, :, partner] + distance * direction
        return positions

    def log_abs(distance: float) -> Tensor:
        values = [psi(None, at(sign * distance), STATES.unsqueeze(1)).real for sign in (1.0, -1.0)]
        node = torch.log(torch.tensor(distance)) if partner == 1 else 0.0
        return 0.5 * (values[0] + values[1]) - node

    step = 2e-4
    with torch.no_grad():
        near, middle, far = (log_abs(multiple * step) for multiple in (1, 2, 4))
    slopes = (2.0 * (middle - near) - 0.5 * (far - middle)) / step
    torch.testing.assert_close(slopes, torch.full_like(slopes, cusp), rtol=0.0, atol=1e-4)
    found = [local_energy(Ewald(SYSTEM.cell), psi, torch.zeros(3, 0, 3), at(d), STATES) for d in (1e-3, 1e-4)]
    assert found[1].v_ee.min() > 5e3
    # what does not cancel would grow by 9000 cusps' worth of Ha
    assert (found[1].total - found[0].total).abs().max() < 1.0


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(SettingError, match="has no protons"):
        JelliumWavefunction(System(4), StatePoint(2.0))
    with pytest.raises(SettingError, match="must be even"):
        JelliumWavefunction(System(3, protons="none"), StatePoint(2.0))
    with pytest.raises(SettingError, match="num_layers"):
        JelliumWavefunction(SYSTEM, StatePoint(2.0), num_layers=0)
    with pytest.raises(SettingError, match="choose sampled, fixed, none"):
        System(4, protons="gone")
