"""Finite-size corrections: the size known for the electron gas, and integrals less sums evaluated numerically."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate

from lightning_vfe.physics.cell import integer_vectors
from lightning_vfe.physics.electron_gas import plasma_frequency
from lightning_vfe.physics.finite_size import (
    LATTICE_SUM,
    Correction,
    holds_long_waves,
    long_wavelength_slope,
    two_body_corrections,
)
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.static_structure import StructureFactor
from lightning_vfe.physics.units import HARTREE_PER_BOHR3_TO_GPA

POINT = StatePoint(1.25, 6000.0)


def at_first_shell(s: float, error: float, num_atoms: int = 16, point: StatePoint = POINT) -> StructureFactor:
    return StructureFactor(np.array([2 * math.pi / point.cell(num_atoms).length]), np.array([s]), np.array([error]))


def values(found: dict[str, Correction]) -> dict[str, float]:
    return {name.removeprefix("finite_size_"): each.value for name, each in found.items()}


@pytest.mark.parametrize("rs", [1.0, 1.25, 5.0])
def test_electron_gas_at_leading_order(rs: float) -> None:
    """omega_p / 4 per cell for each part: what the electron gas has."""
    quarter = math.sqrt(4 * math.pi * 3 / (4 * math.pi * rs**3)) / 4
    assert plasma_frequency(rs) == pytest.approx(4 * quarter)
    found = values(two_body_corrections(StatePoint(rs), 10**9))
    assert found["potential_energy_per_atom"] * 1e9 == pytest.approx(quarter)
    assert found["kinetic_energy_per_atom"] * 1e9 == pytest.approx(quarter, rel=2e-3 * math.sqrt(1.25 / rs) + 1e-9)


def test_small_cells_hold_no_long_waves() -> None:
    assert [holds_long_waves(POINT, num_atoms) for num_atoms in (2, 8, 14, 16, 54)] == [False, False, True, True, True]
    assert holds_long_waves(StatePoint(4.0), 8)
    assert not holds_long_waves(StatePoint(1.0), 14)


def test_scaling_with_atoms() -> None:
    """1 / N, and N^(-4/3) for the second part of the kinetic energy."""
    small, large = (values(two_body_corrections(POINT, num_atoms)) for num_atoms in (16, 128))
    assert small["potential_energy_per_atom"] == pytest.approx(8 * large["potential_energy_per_atom"])
    quarter = plasma_frequency(1.25) / 4
    rest = [quarter / n - found["kinetic_energy_per_atom"] for n, found in ((16, small), (128, large))]
    assert rest[0] == pytest.approx(16 * rest[1])
    assert rest[0] == pytest.approx(0.3324 / 1.25**2 / 16 ** (4 / 3), rel=1e-3)


def test_sums_add_up() -> None:
    """E = F = K + V, and P is the virial."""
    found = values(two_body_corrections(POINT, 16, at_first_shell(0.4, 0.01)))
    kinetic, potential = found["kinetic_energy_per_atom"], found["potential_energy_per_atom"]
    assert found["energy_per_atom"] == found["free_energy_per_atom"] == pytest.approx(kinetic + potential)
    volume = 4 / 3 * math.pi * 1.25**3
    assert found["pressure_gpa"] == pytest.approx((2 * kinetic + potential) / (3 * volume) * HARTREE_PER_BOHR3_TO_GPA)


def test_pressure_is_the_derivative_of_the_energy() -> None:
    """-d(dF)/dV of plasmons, where both parts are known as functions of rs."""
    h = 1e-4
    low, high = (values(two_body_corrections(StatePoint(1.25 + step), 16)) for step in (-h, h))
    slope = (high["energy_per_atom"] - low["energy_per_atom"]) / (2 * h)
    expected = -slope / (4 * math.pi * 1.25**2) * HARTREE_PER_BOHR3_TO_GPA
    assert values(two_body_corrections(POINT, 16))["pressure_gpa"] == pytest.approx(expected, rel=1e-6)


def integral_less_sum(function, length: float) -> float:
    """[int d^3k / (2 pi)^3 - sum_{k != 0} / L^3] f(k), with a smooth cutoff far beyond where f varies."""
    eta = 2 * math.pi / length * 8

    def damped(k):
        return function(k) * np.exp(-((k / eta) ** 2))

    k = 2 * math.pi / length * np.sqrt((integer_vectors(36) ** 2).sum(1)[1:])
    whole = integrate.quad(lambda k: damped(k) * k**2 / (2 * math.pi**2), 1e-9, 6 * eta, limit=400)[0]
    return whole - float(damped(k).sum()) / length**3


def test_closed_forms_are_integrals_less_sums() -> None:
    """The potential energy for S = 1 - exp(-a k^2); the kinetic one for 1/S - 1/S_0 and S_0 = 3 k / 4 k_F."""
    num_atoms, point = 54, StatePoint(1.25)
    length, a = point.cell(num_atoms).length, 0.35
    density, fermi = num_atoms / length**3, (9 * math.pi / 4) ** (1 / 3) / 1.25
    s = 1 - math.exp(-a * (2 * math.pi / length) ** 2)
    found = values(two_body_corrections(point, num_atoms, at_first_shell(s, 0.001, num_atoms, point)))
    potential = 0.5 * integral_less_sum(lambda k: 4 * math.pi / k**2 * -np.expm1(-a * k**2), length)
    assert found["potential_energy_per_atom"] == pytest.approx(potential, rel=1e-4)

    def kinetic(k):
        return 0.25 * (1 / a - 4 / 3 * fermi * k) / (2 * density)

    # without the first summand at k = 0 the sum lacks it there
    assert found["kinetic_energy_per_atom"] == pytest.approx(integral_less_sum(kinetic, length), rel=2e-3)


def test_lattice_sum() -> None:
    damped = [-integral_less_sum(lambda k: k, length) / (2 * math.pi / length) * length**3 for length in (3.0, 5.0)]
    assert damped == pytest.approx([LATTICE_SUM] * 2, rel=5e-3)


def test_measured_slope_and_its_error() -> None:
    point, s = POINT, 0.4
    a, error, method = long_wavelength_slope(at_first_shell(s, 0.01), 1.25)
    k = 2 * math.pi / point.cell(16).length
    assert 1 - math.exp(-a * k**2) == pytest.approx(s)
    assert method == "structure factor"
    assert error == pytest.approx(0.01 / (0.6 * k**2))
    found = two_body_corrections(point, 16, at_first_shell(s, 0.01))
    for number, each in found.items():
        moved = [
            two_body_corrections(point, 16, at_first_shell(s + step, 0.01))[number].value for step in (-1e-5, 1e-5)
        ]
        assert each.error == pytest.approx(abs(moved[1] - moved[0]) / 2e-5 * 0.01, rel=1e-3), number


@pytest.mark.parametrize(("s", "error"), [(0.9, 0.01), (0.4, 0.2), (-0.01, 0.1), (0.4, math.nan)])
def test_plasmons_where_the_first_shell_says_nothing(s: float, error: float) -> None:
    a, own_error, method = long_wavelength_slope(at_first_shell(s, error), 1.25)
    assert (a, method) == (pytest.approx(1 / (2 * plasma_frequency(1.25))), "plasmon")
    assert math.isnan(own_error)
