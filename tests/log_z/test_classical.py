"""Classical protons in a potential whose averages are known."""

import math

import pytest
import torch

from lightning_vfe.log_z.classical import classical_estimates, sample_potential
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.free_energy import momentum_free_energy
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.system import System
from lightning_vfe.physics.units import HARTREE_PER_BOHR3_TO_GPA, KELVIN_TO_HARTREE

SYSTEM, POINT = System(2), StatePoint(2.0, 6000.0)
CELL = PeriodicCell(2, 2.0)
KT = KELVIN_TO_HARTREE * 6000.0
STRENGTH = 0.02


def _energy(z: torch.Tensor) -> torch.Tensor:
    """A cosine in every coordinate: its averages are ratios of Bessel functions."""
    return STRENGTH * torch.cos(2 * math.pi / CELL.length * z).sum(dim=(-2, -1))


def _no_pressure(z: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(z[..., 0, 0])


def test_cosine_wells_have_their_exact_averages():
    x = torch.tensor(STRENGTH / KT)
    ratio = (torch.special.i1(x) / torch.special.i0(x)).item()
    log_z = 6 * math.log(CELL.length * torch.special.i0(x).item())
    start = CELL.length * torch.rand(16, 2, 3, generator=torch.Generator().manual_seed(1))
    samples = sample_potential(_energy, _no_pressure, CELL, KT, start, 0.6, num_samples=300, seed=2)
    found = classical_estimates(SYSTEM, POINT, samples, log_z, log_z_error=0.01)

    energy = -6 * STRENGTH * ratio / 2 + 1.5 * KT
    free_energy = (-KT * log_z + momentum_free_energy(SYSTEM, KT).item()) / 2
    assert abs(found["energy_per_atom"].value - energy) < 4 * found["energy_per_atom"].error
    assert found["energy_per_atom"].error < 0.02 * STRENGTH
    assert found["free_energy_per_atom"].value == pytest.approx(free_energy, rel=1e-12)
    assert found["free_energy_per_atom"].error == pytest.approx(KT * 0.01 / 2)
    entropy = found["entropy_per_atom"]
    assert abs(entropy.value - (energy - free_energy) / KT) < 4 * entropy.error
    ideal = 2 * KT / CELL.volume * HARTREE_PER_BOHR3_TO_GPA
    assert found["pressure_gpa"].value == pytest.approx(ideal, rel=1e-9)


def test_same_seed_gives_the_same_samples():
    start = CELL.length * torch.rand(4, 2, 3, generator=torch.Generator().manual_seed(1))
    first, second = (
        sample_potential(_energy, _no_pressure, CELL, KT, start, 0.6, num_samples=3, seed=2) for _ in range(2)
    )
    assert torch.equal(first.energy, second.energy)
    with pytest.raises(ValueError, match="num_samples = 0 must be"):
        sample_potential(_energy, _no_pressure, CELL, KT, start, 0.6, num_samples=0, seed=2)
