"""Quadrature of F, E and S of two protons: a known integral, and what noise of E(d) does."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import i0, i1

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.free_energy import momentum_free_energy
from lightning_vfe.physics.system import System
from tests.helpers.scripts import load_script

quadrature = load_script(Path(__file__).parents[1] / "benchmarks" / "quadrature.py")
CELL, KT, DEPTH = PeriodicCell(2, 2.0), 0.019, 0.03


def waves() -> tuple[np.ndarray, np.ndarray]:
    """E(d) = DEPTH sum_i cos(2 pi d_i / L), for which <exp(-E/kT)> = I_0(DEPTH/kT)^3."""
    places, counts = quadrature.grid(16)
    return DEPTH * np.cos(2.0 * math.pi * places).sum(axis=1), counts


def exact() -> np.ndarray:
    momenta = float(momentum_free_energy(System(2), torch.tensor(KT, dtype=torch.float64)))
    log_z = 6.0 * math.log(CELL.length) + 3.0 * math.log(i0(DEPTH / KT))
    free_energy = 0.5 * (momenta - KT * log_z)
    energy = 0.5 * (-3.0 * DEPTH * i1(DEPTH / KT) / i0(DEPTH / KT) + 3.0 * KT)
    return np.array([free_energy, energy, (energy - free_energy) / KT])


def test_cosines_have_their_exact_integrals() -> None:
    energy, counts = waves()
    assert counts.sum() == 16**3
    assert quadrature.integrals(energy, np.zeros_like(energy), counts, CELL, KT) == pytest.approx(exact(), rel=1e-9)


def test_noise_of_the_energies_makes_no_bias() -> None:
    """Over many sets of noise, within 4 standard errors; the correction of F is more than 10 of them."""
    energy, counts = waves()
    random, error = np.random.default_rng(2), np.full(len(energy), 0.003)
    found = np.array(
        [
            quadrature.integrals(energy + error * random.normal(size=len(energy)), error, counts, CELL, KT)
            for _ in range(1500)
        ]
    )
    errors = found.std(axis=0) / math.sqrt(len(found))
    assert (np.abs(found.mean(axis=0) - exact()) < 4.0 * errors).all()
    assert 10.0 * errors[0] < 0.003**2 / (4.0 * KT)
