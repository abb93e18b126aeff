r"""Two-body finite-size corrections of the energy of N atoms in the periodic cell, from the structure factor.

The periodic cell holds sums over its reciprocal lattice where an infinite system has integrals. Both parts of E have
the form of such a sum. Their summands are smooth except at k = 0, which the sums leave out. With n = N / L^3:

Potential energy. V / N = 1/2 (1/L^3) sum_{k != 0} (4 pi / k^2) [S_qq(k) - 2] + self energies, where S_qq is that of the
charge, <|rho_p - rho_e|^2> / N. What is missing is the value of the summand at k = 0:

    dV / N = (2 pi / L^3) a,        a = lim_{k -> 0} S_qq(k) / k^2.

S_qq = <|rho_e - <rho_e>_x|^2> / N + <|rho_p - <rho_e>_x|^2> / N: the electrons' own fluctuations at given protons x,
and the mean charge around these protons. The electrons screen the protons, so that the second part is of order k^4 in
a metal. In any case a classical fluid of charges bounds it by k^2 kT / (4 pi n) (Stillinger and Lovett 1968). That is
2 kT / omega_p of the first part, 3 % at rs = 1.25 and 6000 K. So a is that of the first part.

Kinetic energy. A Jastrow factor exp[-1/(2 L^3) sum_k u(k) |rho_k|^2] gives K / N = 1/4 (1/L^3) sum_{k != 0} k^2 u(k)
[1 - S(k)] (Chiesa 2006), with 2 n u = 1/S - 1/S_0 (Gaskell 1961). S_0 = 3 k / (4 k_F) is that of free electrons. With
S = a k^2 this is [1/a - 4/3 k_F k] / (8 n) at small k. The sum lacks the first term at k = 0. The second one is not
smooth there, and its lattice sum zeta = sum_{n != 0} |n| = -0.2666 (regularised) remains:

    dK / N = 1 / (8 a N) + zeta pi k_F / (3 N L).

The density fluctuations of long wavelengths are the zero-point motion of plasmons of frequency omega_p^2 = 4 pi n.
A metal has a = 1 / (2 omega_p), so that dV = dK = omega_p / (4 N) to leading order. The second term of dK is of order
N^(-4/3), is that of a metal, and lowers dK by a quarter at N = 16 and rs = 1.25.

Source: Chiesa, Ceperley, Martin and Holzmann, PRL 97, 076404 (2006); Holzmann et al., PRB 94, 035126 (2016). Left out:
one-body effects (the twists take most of them), the structure of the protons in a small cell, and all higher orders.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lightning_vfe.physics.electron_gas import fermi_wavenumber, plasma_frequency
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.static_structure import StructureFactor
from lightning_vfe.physics.units import HARTREE_PER_BOHR3_TO_GPA

MAX_S = 0.75
"""Largest S of the first shell that is extrapolated to k = 0: beyond it the form of S(k) decides the result."""

MAX_RELATIVE_ERROR = 0.1
"""Largest relative error of a that is measured."""

MAX_PLASMON_S = 0.5
"""Largest S that plasmons have at the first shell of a cell with corrections: smaller cells hold no long waves."""

LATTICE_SUM = -0.2665963
"""sum_{n != 0} |n| over the simple cubic lattice less its integral, with a smooth cutoff that goes to infinity."""


@dataclass(frozen=True)
class Correction:
    """What is to be added to a quantity of N atoms to approach that of infinitely many.

    Attributes:
        value: in the unit.
        error: statistical error from that of S(k); nan without a measured S(k).
        unit: Ha (per atom) or GPa.
        method: "structure factor", or "plasmon" where a = 1 / (2 omega_p) is taken.
    """

    value: float
    error: float
    unit: str
    method: str


def holds_long_waves(point: StatePoint, num_atoms: int) -> bool:
    """Whether the first shell lies where S(k) is still small, so that an expansion around k = 0 says something.

    1 - exp(-k^2 / (2 omega_p)) of plasmons is at most 0.5 there. At rs = 1.25 this needs N = 14 or more: the correction
    of N = 8 is far too large (docs/results.md).
    """
    k = 2.0 * math.pi / point.cell(num_atoms).length
    return -math.expm1(-(k**2) / (2.0 * plasma_frequency(point.rs))) <= MAX_PLASMON_S


def long_wavelength_slope(fluctuation: StructureFactor | None, rs: float) -> tuple[float, float, str]:
    """a = lim S(k) / k^2 in bohr^2, its error and the method.

    The first shell gives it by S(k) = 1 - exp(-a k^2), a form that is 1 at large k: a = -ln(1 - S) / k^2. Where S of
    that shell is larger than MAX_S, unknown or noisy, a is that of plasmons.

    Args:
        fluctuation: S(k) of the electrons' own fluctuations; None where it was not measured.
        rs: in bohr.
    """
    if fluctuation is not None:
        k, s, error = (float(each[0]) for each in (fluctuation.k, fluctuation.s, fluctuation.error))
        if 0.0 < s <= MAX_S and math.isfinite(error):
            a, error = -math.log1p(-s) / k**2, error / ((1.0 - s) * k**2)
            if error <= MAX_RELATIVE_ERROR * a:
                return a, error, "structure factor"
    return 1.0 / (2.0 * plasma_frequency(rs)), math.nan, "plasmon"


def two_body_corrections(
    point: StatePoint, num_atoms: int, fluctuation: StructureFactor | None = None
) -> dict[str, Correction]:
    """Corrections of the potential and kinetic energy per atom, of E, F and P, by names of summary.json.

    dE = dF = dK + dV: the entropy does not change to this order. The pressure is that of the virial, (2 dK + dV) / 3V.
    The parts have one error in common, that of a, with its sign in each.

    Args:
        point: rs.
        num_atoms: N.
        fluctuation: S(k) of the electrons' own fluctuations at given protons; None takes plasmons.
    """
    cell = point.cell(num_atoms)
    a, error, method = long_wavelength_slope(fluctuation, point.rs)
    potential, kinetic = 2.0 * math.pi * a / cell.volume, 1.0 / (8.0 * a * num_atoms)
    d_potential, d_kinetic = potential / a, -kinetic / a  # derivatives by a
    kinetic += LATTICE_SUM * math.pi * fermi_wavenumber(point.rs) / (3.0 * num_atoms * cell.length)
    gpa = HARTREE_PER_BOHR3_TO_GPA * num_atoms / (3.0 * cell.volume)
    energy, d_energy = potential + kinetic, d_potential + d_kinetic
    found = {
        "free_energy_per_atom": (energy, d_energy, "Ha"),
        "energy_per_atom": (energy, d_energy, "Ha"),
        "kinetic_energy_per_atom": (kinetic, d_kinetic, "Ha"),
        "potential_energy_per_atom": (potential, d_potential, "Ha"),
        "pressure_gpa": (gpa * (2.0 * kinetic + potential), gpa * (2.0 * d_kinetic + d_potential), "GPa"),
    }
    return {
        f"finite_size_{name}": Correction(value, abs(slope) * error, unit, method)
        for name, (value, slope, unit) in found.items()
    }
