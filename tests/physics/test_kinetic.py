"""The kinetic energy carried forward, by nested differentiation, by finite differences, and exactly."""

import math

import pytest
import torch
from torch import Tensor

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.kinetic import kinetic_energy, kinetic_energy_nested
from tests.helpers.derivatives import finite_difference_kinetic
from tests.helpers.states import states_at
from tests.helpers.wavefunctions import GAMMA, GENERAL_TWIST, make_wavefunction, random_configurations

ROUTES = [kinetic_energy, kinetic_energy_nested]


def plane_wave_determinants(cell: PeriodicCell, twist: Tensor):
    """ln psi of the N/2 lowest plane waves at a twist for each spin, and its kinetic energy."""
    num_up = cell.num_atoms // 2
    momenta = 2.0 * math.pi / cell.length * (cell.plane_waves(num_up)[:num_up] + twist)

    def log_determinant(positions):
        phase = positions @ momenta.T
        sign, log_abs = torch.linalg.slogdet(torch.complex(torch.cos(phase), torch.sin(phase)))
        return torch.log(sign) + log_abs

    def log_psi(electrons):
        return log_determinant(electrons[..., :num_up, :]) + log_determinant(electrons[..., num_up:, :])

    return log_psi, momenta.square().sum().item()


@pytest.mark.parametrize("twist", [GAMMA, GENERAL_TWIST])
@pytest.mark.parametrize("num_atoms", [2, 6, 14])
@pytest.mark.parametrize("route", ROUTES)
def test_plane_waves_have_their_energy_everywhere(route, num_atoms, twist):
    cell = PeriodicCell(num_atoms, 1.31)
    log_psi, expected = plane_wave_determinants(cell, torch.tensor(twist))
    _, electrons = random_configurations(cell, 3, 1)
    error = (route(log_psi, electrons) - expected).abs().max().item()
    assert error < 1e-8 * max(1.0, expected), f"largest error {error:.1e} Ha"


@pytest.mark.parametrize("route", ROUTES)
def test_oscillators_have_their_local_kinetic_energy(route):
    """psi = exp(-a r^2 / 2 + i q.r): T = 3 N a / 2 - a^2 r^2 / 2 + N q^2 / 2 + i a q.r (summed over electrons)."""
    stiffness, momentum = 0.7, torch.tensor([0.3, -0.2, 0.5])

    def log_psi(r):
        real = r.square().sum((-2, -1)) * (-0.5 * stiffness)
        return torch.complex(real, (r * momentum).sum((-2, -1)))

    electrons = torch.randn(2, 3, 4, 3)
    squared = electrons.square().sum((-2, -1))
    real = 6.0 * stiffness - 0.5 * stiffness**2 * squared + 2.0 * momentum.square().sum()
    expected = torch.complex(real, stiffness * (electrons * momentum).sum((-2, -1)))
    torch.testing.assert_close(route(log_psi, electrons), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("num_determinants", [1, 3])
@pytest.mark.parametrize("num_atoms", [2, 4, 6])
def test_carried_forward_as_nested_as_finite_differences(num_atoms, num_determinants):
    """Random parameters; proton walkers at Gamma, at a general twist and at the zone boundary."""
    cell = PeriodicCell(num_atoms, 1.31)
    wavefunction = make_wavefunction(cell, seed=num_atoms, num_determinants=num_determinants)
    protons, electrons = random_configurations(cell, 3, 2, seed=num_atoms)
    states = states_at(cell, twist=[GAMMA, GENERAL_TWIST, (0.5, 0.5, 0.0)]).unsqueeze(1)

    def log_psi(r):
        return wavefunction.log_psi(protons, r, states)

    forward = kinetic_energy(log_psi, electrons)
    scale = forward.abs().clamp(min=1.0)
    nested_error = ((forward - kinetic_energy_nested(log_psi, electrons)).abs() / scale).max().item()
    assert nested_error < 1e-10, f"forward and nested differ by {nested_error:.1e}"
    with torch.no_grad():
        difference_error = ((forward - finite_difference_kinetic(log_psi, electrons)).abs() / scale).max().item()
    assert difference_error < 1e-6, f"forward and finite differences differ by {difference_error:.1e}"
    assert forward[1].imag.abs().max() > 1e-3, "at a twist the local energy is complex: this test would miss it"


def test_nested_differentiation_is_guarded_against_no_grad():
    """torch.func.jvp of a vjp gives wrong numbers under torch.no_grad; the reference must not."""
    cell = PeriodicCell(4, 1.31)
    wavefunction = make_wavefunction(cell)
    protons, electrons = random_configurations(cell, 2, 2)

    def log_psi(r):
        return wavefunction.log_psi(protons, r, states_at(cell, twist=GENERAL_TWIST))

    expected = kinetic_energy_nested(log_psi, electrons)
    with torch.no_grad():
        torch.testing.assert_close(kinetic_energy_nested(log_psi, electrons), expected, rtol=1e-14, atol=0.0)
        torch.testing.assert_close(kinetic_energy(log_psi, electrons), expected, rtol=1e-10, atol=1e-10)


def test_walkers_do_not_see_each_other():
    cell = PeriodicCell(4, 1.31)
    wavefunction = make_wavefunction(cell)
    protons, electrons = random_configurations(cell, 2, 3)
    states = states_at(cell, twist=[GAMMA, GENERAL_TWIST]).unsqueeze(1)
    together = kinetic_energy(lambda r: wavefunction.log_psi(protons, r, states), electrons)
    for w in range(2):
        for b in range(3):
            alone = kinetic_energy(lambda r, w=w: wavefunction.log_psi(protons[w, 0], r, states[w, 0]), electrons[w, b])
            torch.testing.assert_close(together[w, b], alone, rtol=1e-11, atol=1e-11)


def test_no_graph_is_recorded():
    cell = PeriodicCell(2, 1.31)
    wavefunction = make_wavefunction(cell)
    protons, electrons = random_configurations(cell, 1, 1)
    for route in ROUTES:
        energy = route(lambda r: wavefunction.log_psi(protons, r, states_at(cell)), electrons)
        assert not energy.requires_grad
