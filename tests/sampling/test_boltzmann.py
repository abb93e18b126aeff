"""Langevin chains of a potential: the distribution that they follow."""

import numpy as np
import pytest
import torch
from scipy.special import iv

from lightning_vfe.models.potential.yukawa import YukawaPotential
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.units import KELVIN_TO_HARTREE
from lightning_vfe.sampling.boltzmann import ChainSettings, sample_configurations

CELL = PeriodicCell(4, 1.25)


def test_samples_follow_boltzmann() -> None:
    # independent atoms in -kT a cos(2 pi x/L): <cos> = I_1(a) / I_0(a), variance of the cosine 1 - m/a - m^2
    strength, temperature = 1.5, 6000.0
    thermal = KELVIN_TO_HARTREE * temperature

    def energy(positions: torch.Tensor) -> torch.Tensor:
        return -thermal * strength * torch.cos(positions * (2 * torch.pi / CELL.length)).sum((-2, -1))

    count = 256
    samples = sample_configurations(energy, CELL, temperature, count, ChainSettings(64, 200, 100), seed=3)
    assert samples.positions.shape == (count, 4, 3)
    assert (samples.positions >= 0).all()
    assert (samples.positions < CELL.length).all()
    assert 0.4 < samples.acceptance < 0.75
    assert samples.autocorrelation_steps < 100
    cosines = torch.cos(samples.positions * (2 * torch.pi / CELL.length))
    mean = iv(1, strength) / iv(0, strength)
    error = np.sqrt((1 - mean / strength - mean**2) / cosines.numel())
    assert abs(float(cosines.mean()) - mean) < 4 * error


def test_equal_seeds_give_equal_configurations() -> None:
    potential = YukawaPotential()
    settings = ChainSettings(num_walkers=4, equilibration_steps=20, spacing=10)
    runs = [
        sample_configurations(lambda z: potential.energy(z, CELL), CELL, 6000.0, 6, settings, seed).positions
        for seed in (1, 1, 2)
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_settings_out_of_range() -> None:
    with pytest.raises(ValueError, match="spacing = 0"):
        ChainSettings(spacing=0)
