"""What sets the scales of the electron gas at a density, in Hartree atomic units."""

import math


def plasma_frequency(rs: float) -> float:
    """omega_p = sqrt(4 pi n) = sqrt(3 / rs^3) in Ha.

    Args:
        rs: in bohr.
    """
    return math.sqrt(3.0 / rs**3)


def fermi_wavenumber(rs: float) -> float:
    """k_F = (3 pi^2 n)^(1/3) = (9 pi / 4)^(1/3) / rs of the unpolarised gas, in 1/bohr.

    Args:
        rs: in bohr.
    """
    return float((9.0 * math.pi / 4.0) ** (1.0 / 3.0) / rs)
