"""Forces of electrons on protons: the filter near a proton is exact for smooth densities and tames the variance."""

import numpy as np
import pytest
import torch

from lightning_vfe.errors import SettingError
from lightning_vfe.physics.electron_forces import hellmann_feynman_forces, near_weight
from lightning_vfe.physics.ewald import Ewald
from lightning_vfe.physics.system import System


@pytest.mark.parametrize("power", [1, 2, 3, 4])
def test_weight_keeps_the_integral_of_polynomials(power: int) -> None:
    radius = 0.7
    nodes, weights = np.polynomial.legendre.leggauss(20)
    r = torch.tensor(0.5 * radius * (nodes + 1.0))
    integral = float((near_weight(r, radius) * r**power * torch.tensor(weights)).sum()) * 0.5 * radius
    assert integral == pytest.approx(radius ** (power + 1) / (power + 1), rel=1e-9)
    with pytest.raises(SettingError, match="radius = 0"):
        near_weight(r, 0.0)


def test_forces_away_from_protons_are_derivatives_of_the_coulomb_energy() -> None:
    system, rs = System(2), 2.0
    ewald = Ewald(system.cell)
    protons = torch.tensor([[[0.0, 0.0, 0.0], [2.0, 0.5, 0.0]]])
    electrons = torch.tensor([[[[1.0, 1.5, 0.2], [2.5, -1.0, 1.0]]]])

    def energy(x: torch.Tensor) -> torch.Tensor:
        found = ewald.energies(x, electrons[:, 0], unit=torch.tensor([rs]))
        return (found.v_pp + found.v_pe) / rs

    forces = hellmann_feynman_forces(ewald, protons, electrons, torch.tensor([rs]))
    step = 1e-5
    for atom in range(2):
        for axis in range(3):
            shift = torch.zeros_like(protons)
            shift[0, atom, axis] = step
            slope = (energy(protons + shift) - energy(protons - shift)) / (2.0 * step)
            assert float(forces[0, 0, atom, axis]) == pytest.approx(-float(slope), abs=1e-8)


def test_forces_of_a_linear_density() -> None:
    """Electrons with a density that rises along x inside the sphere pull the proton by 2 pi/3 slope R^2."""
    system, rs, radius, slope, num = System(2), 2.0, 0.6, 1.0, 200_000
    generator = torch.Generator().manual_seed(3)
    inside = torch.rand(4 * num, 3, generator=generator) * 2.0 - 1.0
    inside = inside[inside.norm(dim=-1) < 1.0][:num] * radius
    kept = torch.rand(num, generator=generator) * (1.0 + slope * radius) < 1.0 + slope * inside[:, 0]
    inside = inside[kept]
    distance = inside.norm(dim=-1)
    pull = (near_weight(distance, radius) / distance**3).unsqueeze(-1) * inside
    volume = 4.0 / 3.0 * np.pi * radius**3
    exact = 2.0 / 3.0 * np.pi * slope * radius**2 / volume
    error = float(pull[:, 0].std()) / np.sqrt(len(pull))
    assert abs(float(pull[:, 0].mean()) - exact) < 4.0 * error
    assert error < 0.03
    # the same weight acts in the forces: they are finite where an electron sits on a proton
    protons = torch.tensor([[[0.0, 0.0, 0.0], [2.5, 2.5, 2.5]]])
    electrons = torch.tensor([[[[1e-4, 0.0, 0.0], [2.0, 0.0, 2.0]]]])
    forces = hellmann_feynman_forces(Ewald(system.cell), protons, electrons, torch.tensor([rs]))
    assert forces.abs().max() < 10.0
