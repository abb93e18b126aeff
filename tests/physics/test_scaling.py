"""The virial pressure against -dE/dV, for waves whose energy is known by quadrature."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from lightning_vfe.physics.scaling import virial_excess
from lightning_vfe.physics.state_point import WalkerStates
from lightning_vfe.physics.units import HARTREE_PER_BOHR3_TO_GPA

RS, NUM = 1.7, 2
UNIT = (4.0 * math.pi * NUM / 3.0) ** (1.0 / 3.0)  # L / rs
EXPONENT, CHIRP = 0.4, 0.3


def log_psi(protons: torch.Tensor, electrons: torch.Tensor, states: WalkerStates) -> torch.Tensor:
    """sum_i (a + i c) rs cos(2 pi x_i / L), and a phase of the density, which must drop out."""
    angle = 2.0 * math.pi * electrons[..., 0] / (UNIT * states.rs.unsqueeze(-1))
    amplitude = torch.complex(EXPONENT * states.rs, CHIRP * states.rs)
    phase = 40.0 * states.rs
    log = amplitude * torch.cos(angle).sum(-1)
    return torch.complex(log.real, torch.remainder(log.imag + phase, 2.0 * math.pi))


def kinetic(angle: np.ndarray, rs: float) -> np.ndarray:
    """Complex local kinetic energy of an electron: -1/2 (q'' + q'^2) with q = b cos(angle)."""
    wave, b = 2.0 * math.pi / (UNIT * rs), complex(EXPONENT, CHIRP) * rs
    return -0.5 * wave**2 * (-b * np.cos(angle) + (b * np.sin(angle)) ** 2)


def energy(rs: float) -> float:
    """Mean kinetic energy of an electron, by quadrature."""

    def weight(angle: float) -> float:
        return math.exp(2.0 * EXPONENT * rs * math.cos(angle))

    top = quad(lambda angle: weight(angle) * kinetic(np.array(angle), rs).real, 0.0, 2.0 * math.pi)[0]
    return top / quad(weight, 0.0, 2.0 * math.pi)[0]


def test_excess_is_that_of_the_derivative_of_the_energy() -> None:
    """2K + dE/d ln rs by quadrature, in units of the error of the samples; the other particles do not matter."""
    walkers, electron_walkers = 400, 8
    random = np.random.default_rng(2)
    grid = np.linspace(0.0, 2.0 * math.pi, 20001)
    density = np.exp(2.0 * EXPONENT * RS * np.cos(grid))
    cumulative = np.cumsum(density) / density.sum()
    angles = np.interp(random.random((walkers, electron_walkers, NUM)), cumulative, grid)
    electrons = torch.zeros(walkers, electron_walkers, NUM, 3)
    electrons[..., 0] = torch.as_tensor(angles) * UNIT * RS / (2.0 * math.pi)
    total = torch.as_tensor(kinetic(angles, RS).sum(-1))
    states = WalkerStates.at(RS, twist=torch.zeros(walkers, 3))
    found = virial_excess(log_psi, torch.zeros(walkers, NUM, 3), electrons, states, total, NUM)
    step = 1e-4
    slope = NUM * (energy(RS * math.exp(step)) - energy(RS * math.exp(-step))) / (2.0 * step)
    exact = (2.0 * NUM * energy(RS) + slope) / (3.0 * (UNIT * RS) ** 3) * HARTREE_PER_BOHR3_TO_GPA
    error = float(found.std()) / math.sqrt(walkers)
    assert abs(float(found.mean()) - exact) < 3.5 * error
    assert abs(exact) > 20.0 * error, "the test must see something"


def test_an_eigenstate_has_none() -> None:
    """E_loc is constant, whatever psi does with the density."""
    electrons = torch.rand(5, 4, NUM, 3)
    states = WalkerStates.at(RS, twist=torch.zeros(5, 3))
    total = torch.full((5, 4), -1.1 + 0.0j)
    found = virial_excess(log_psi, torch.zeros(5, NUM, 3), electrons, states, total, NUM)
    assert found.abs().max() == pytest.approx(0.0, abs=1e-9)
