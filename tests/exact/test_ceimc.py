"""Coupled electron-ion Monte Carlo of two atoms against quadrature of exp(-E_psi/kT), for a psi whose E is known."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from lightning_vfe.models.base.uniform import UniformBase
from lightning_vfe.models.flow.equivariant_flow import EquivariantFlow
from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.ewald import Ewald
from lightning_vfe.physics.state_point import WalkerStates
from lightning_vfe.physics.strata import Strata
from lightning_vfe.physics.system import System
from lightning_vfe.sampling.coupled import CoupledDensity
from lightning_vfe.sampling.nested import NestedSampler
from lightning_vfe.state.variational_state import VariationalState
from tests.helpers.plasma import pair_grid

RS, KELVIN, STRENGTH, GRID = 2.0, 60000.0, 0.1, 12
CELL = PeriodicCell(2, RS)
WAVE = 2 * math.pi / CELL.length


def orbital(positions: Tensor, protons: Tensor) -> Tensor:
    """phi(r) = 1 + c sum_a sum_d cos(2 pi (r - x_a)_d / L), positive.  # (...)"""
    waves = torch.cos(WAVE * (positions[..., :, None, :] - protons[..., None, :, :]))
    return 1.0 + STRENGTH * waves.sum(dim=(-1, -2))


class Orbitals(nn.Module):
    """psi_x(r) = phi(r_1) phi(r_2): one electron up, one down, both in the same orbital."""

    carries_derivatives = True

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, protons: Tensor, electrons: Tensor, states: WalkerStates) -> Tensor:
        """ln psi, complex.  # (...)"""
        return torch.complex(orbital(electrons, protons).log().sum(-1), self.unused * electrons[..., 0, 0])


def exact_energy(protons: Tensor) -> Tensor:
    """E_psi(x) up to a constant, in Ha, from the plane waves of phi and phi^2.  # (M, 2, 3) -> (M,)"""
    points = 8  # phi^2 has no wave beyond the second
    axis = torch.arange(points) * (CELL.length / points)
    grid = torch.cartesian_prod(axis, axis, axis)
    wave_numbers = torch.fft.fftfreq(points, 1 / points) * WAVE
    waves = torch.cartesian_prod(wave_numbers, wave_numbers, wave_numbers)  # (G, 3)
    squared = waves.square().sum(-1)
    coulomb = torch.where(squared > 0, 4 * math.pi / squared.clamp(min=1e-9), 0.0) / CELL.volume
    phi = orbital(grid.expand(len(protons), -1, -1), protons)  # (M, G)
    density = phi.square() / phi.square().mean(-1, keepdim=True)  # of one electron, times the volume

    def transform(values: Tensor) -> Tensor:
        return torch.fft.fftn(values.unflatten(-1, (points,) * 3), dim=(-3, -2, -1)).flatten(1) / points**3

    of_phi, of_density = transform(phi), transform(density)
    share = of_phi.abs().square()
    kinetic = (share @ squared) / share.sum(-1)  # 1/2 k^2, two electrons
    phases = torch.exp(1j * (protons @ waves.T)).sum(dim=1)  # (M, G)
    v_ee = of_density.abs().square() @ coulomb
    v_pe = -2.0 * (of_density * phases).real @ coulomb
    return kinetic + v_ee + v_pe + Ewald(CELL).proton_energy(protons)


def make_state(num_electron_steps: int = 4) -> VariationalState:
    system, strata = System(2), Strata.of(rs=RS, temperature_kelvin=KELVIN)
    flow = EquivariantFlow(system, strata.reference, num_blocks=1, num_steps=1, num_layers=1, num_channels=2)
    sampler = NestedSampler(
        system,
        num_proton_steps=2,
        num_electron_steps=num_electron_steps,
        initial_electron_width=0.6,
        proton_sampling="ceimc",
        ceimc_electron_walkers=16,
        ceimc_proton_width=0.25,
    )
    density = ProtonDensity(UniformBase(system), flow)
    return VariationalState(system, strata, Orbitals(), density, sampler, 64, 2, 4, equilibration_sweeps=1)


def distance(protons: Tensor) -> Tensor:
    """Between the protons, to the nearest image, in bohr.  # (...)"""
    return CELL.minimum_image(protons[:, 0] - protons[:, 1]).norm(dim=-1)


def test_energy_of_the_orbitals_is_that_of_vmc() -> None:
    """The reference itself: differences between two places against plain averages of E_loc, within 4 errors."""
    state = make_state(num_electron_steps=40)
    walkers = state.place()
    places = torch.tensor([[[0.0, 0.0, 0.0], [0.7, 0.2, 0.1]], [[0.0, 0.0, 0.0], [1.5, 1.4, 1.2]]])
    which = torch.arange(64) % 2
    walkers["protons"] = CELL.wrap(places[which]) / RS
    density, totals = state.proton_target(), []
    assert isinstance(density, CoupledDensity)
    for _ in range(30):
        state.sampler.step(walkers, None, density.electrons, adapt=False)
        totals.append(density.energies(walkers).mean(1))
    series = torch.stack(totals).mean(0)
    own = [series[which == place] for place in (0, 1)]
    error = torch.stack([each.std() / len(each) ** 0.5 for each in own]).norm()
    exact = exact_energy(places).diff()
    assert abs(own[1].mean() - own[0].mean() - exact) < 4 * error
    assert abs(exact) > 20 * error, "the test would see nothing"


def test_protons_are_those_of_the_energy_of_psi() -> None:
    """<E_psi> and the mean distance against quadrature, within 4 errors; p(x) is flat here, and far off."""
    pairs = pair_grid(CELL, GRID)
    kT = float(Strata.of(rs=RS, temperature_kelvin=KELVIN).reference.kT)
    energy = exact_energy(pairs)
    weight = torch.softmax(-energy / kT, 0)
    exact = np.array([float((weight * value).sum()) for value in (energy, distance(pairs))])
    flat = float(distance(pairs).mean())
    state = make_state()
    state.equilibrate(10, adapt=False)
    batches = [state.batch() for _ in range(36)]
    found = []
    for function in (exact_energy, distance):
        values = torch.stack([function(batch.protons) for batch in batches[::2]]).mean(0)  # (W,)
        found.append((float(values.mean()), float(values.std() / len(values) ** 0.5)))
    for (value, error), reference in zip(found, exact, strict=True):
        assert abs(value - reference) < 4 * error, f"{value:.4f} +- {error:.4f}, exact {reference:.4f}"
    assert abs(flat - exact[1]) > 8 * found[1][1], "a flat distribution would pass"
    noise = np.mean([float(batch.report["ceimc_noise"]) for batch in batches])
    print(f"exact {exact}, found {found}, flat {flat:.4f}, noise {noise:.3f}")
    assert noise > 0.02, "no noise to correct"
