"""States whose local energy is one number everywhere."""

import pytest
import torch

from lightning_vfe.forward_laplacian import relative_vectors
from lightning_vfe.physics import local_energy as local_energy_module
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.ewald import Ewald
from lightning_vfe.physics.kinetic import kinetic_energy, kinetic_energy_nested
from lightning_vfe.physics.local_energy import local_energy
from lightning_vfe.physics.state_point import WalkerStates
from lightning_vfe.physics.system import System
from tests.helpers.states import states_at
from tests.helpers.wavefunctions import GAMMA, GENERAL_TWIST, make_wavefunction, random_configurations

ROUTES = [kinetic_energy, kinetic_energy_nested]


def _complex(real):
    return torch.complex(real, torch.zeros_like(real))


@pytest.mark.parametrize("route", ROUTES)
def test_hydrogen_atom(route):
    """psi = exp(-r), bare potential -1/r: -0.5 Ha at every distance."""
    proton = torch.tensor([[0.3, -0.2, 0.1]])

    def log_psi(r):
        distance = torch.sqrt(relative_vectors(r, proton).square().sum(-1))
        return _complex(distance.sum((-2, -1)) * -1.0)

    directions = torch.nn.functional.normalize(torch.randn(50, 3), dim=-1)
    distances = torch.logspace(-6, 1, 50)
    electrons = (proton + distances.unsqueeze(-1) * directions).unsqueeze(-2)  # (50, 1, 3)
    energy = route(log_psi, electrons) - 1.0 / distances
    # The two terms of size 1/r cancel: rounding is relative to them.
    error = ((energy + 0.5).abs() * distances.clamp(max=1.0)).max().item()
    assert error < 1e-8, f"largest error {error:.1e}"


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("triplet", [False, True])
def test_two_electrons_in_an_oscillator(route, triplet):
    """Hookium (Taut, Phys. Rev. A 48, 3561 (1993)), with the cusps 1/2 and 1/4.

    Singlet, omega = 1/2: (1 + d/2) exp(-omega (r_1^2 + r_2^2) / 2), E = 2. Triplet, omega = 1/4:
    (z_1 - z_2) (1 + d/4) exp(-omega (r_1^2 + r_2^2) / 2), E = 5/4.
    """
    omega, slope, energy = (0.25, 0.25, 1.25) if triplet else (0.5, 0.5, 2.0)

    def log_psi(r):
        vector = r[..., 0, :] - r[..., 1, :]
        distance = torch.sqrt(vector.square().sum(-1))
        value = torch.log(1.0 + slope * distance) + r.square().sum((-2, -1)) * (-0.5 * omega)
        if triplet:
            value = value + 0.5 * torch.log(vector[..., 2].square())
        return _complex(value)

    electrons = torch.randn(40, 2, 3)
    distance = (electrons[:, 0] - electrons[:, 1]).norm(dim=-1)
    potential = 0.5 * omega**2 * electrons.square().sum((-2, -1)) + 1.0 / distance
    error = (route(log_psi, electrons) + potential - energy).abs().max().item()
    assert error < 1e-9, f"largest error {error:.1e} Ha"


@pytest.mark.parametrize("twist", [GAMMA, GENERAL_TWIST])
def test_terms_of_two_electrons_in_plane_waves(twist):
    """Both electrons in the lowest wave of the twist: kinetic energy k^2, and the Ewald energies as they are, for
    walkers at three densities.
    """
    cells = [PeriodicCell(2, rs) for rs in (1.31, 0.9, 2.5)]
    twists = torch.tensor(twist).expand(3, 3)
    states = WalkerStates(torch.tensor([cell.rs for cell in cells]), torch.zeros(3), twists)
    momenta = 2.0 * torch.pi * twists / torch.tensor([cell.length for cell in cells]).unsqueeze(-1)
    protons, electrons = random_configurations(cells[0], 3, 4)

    def log_psi(x, r, states):
        wavevector = (2.0 * torch.pi / System(2).cell.length) * states.twist / states.rs.unsqueeze(-1)
        phase = (r * wavevector.unsqueeze(-2)).sum((-2, -1))
        return torch.complex(phase * 0.0, phase)

    terms = local_energy(Ewald(System(2).cell), log_psi, protons[:, 0], electrons, states)
    for w, cell in enumerate(cells):
        expected = Ewald(cell).energies(protons[w], electrons[w])
        for name in ("v_pp", "v_pe", "v_ee"):
            assert getattr(terms, name).shape == (3, 4)
            torch.testing.assert_close(getattr(terms, name)[w], getattr(expected, name).expand(4))
    kinetic = momenta.square().sum(-1, keepdim=True).expand(3, 4)
    torch.testing.assert_close(terms.kinetic, _complex(kinetic), rtol=0, atol=1e-12)
    total = terms.kinetic + terms.v_pp + terms.v_pe + terms.v_ee
    torch.testing.assert_close(terms.total, total, rtol=1e-14, atol=0.0)


def test_walkers_in_parts_give_the_same(monkeypatch):
    cell = PeriodicCell(4, 1.31)
    wavefunction = make_wavefunction(cell)
    protons, electrons = random_configurations(cell, 5, 2)
    states = states_at(cell, twist=[GAMMA, GENERAL_TWIST, GAMMA, GENERAL_TWIST, (0.5, 0.0, 0.0)])
    states.rs[2:] *= 1.2
    arguments = (Ewald(System(4).cell), wavefunction.log_psi, protons[:, 0], electrons, states)
    together = local_energy(*arguments)
    monkeypatch.setattr(local_energy_module, "TANGENT_BYTES", 0)
    apart = local_energy(*arguments)
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
