"""Unit conversions. Inside the package everything is in Hartree atomic units (energy Ha, length bohr).

Kelvin, eV, angstrom and GPa appear only at the boundary, in a name (`temperature_kelvin`, `pressure_gpa`).
Values: CODATA, through scipy.constants.
"""

from scipy import constants

from lightning_vfe.errors import SettingError

KELVIN_TO_HARTREE: float = constants.value("kelvin-hartree relationship")
"""Boltzmann's constant k_B in Ha per kelvin: kT = KELVIN_TO_HARTREE * temperature_kelvin."""

HARTREE_TO_EV: float = constants.value("Hartree energy in eV")
"""One Ha in eV."""

BOHR_TO_ANGSTROM: float = constants.value("Bohr radius") / constants.angstrom
"""One bohr in angstrom."""

HARTREE_PER_BOHR3_TO_GPA: float = constants.value("Hartree energy") / constants.value("Bohr radius") ** 3 / 1e9
"""One Ha/bohr^3 in GPa, 29421.0."""

ATOMIC_VELOCITY_TO_KM_PER_S: float = constants.value("atomic unit of velocity") / 1e3
"""One atomic unit of velocity in km/s, 2187.69."""

# Rounded on purpose: the reference free energies of this package were computed with this value. Xie et al. (2023) used
# 1836, which changes F by 3/2 kT ln(1836.15 / 1836) = 1.2e-4 kT per proton.
PROTON_MASS: float = 1836.15
"""Mass of the proton in electron masses."""

NUCLEAR_MASSES: dict[str, float] = {
    "H": PROTON_MASS,
    "D": constants.value("deuteron-electron mass ratio"),
    "T": constants.value("triton-electron mass ratio"),
}
"""Masses of the nuclei of hydrogen, deuterium and tritium in electron masses."""

# Kelvin. Beyond them kT or the thermal wavelength leave the floating-point numbers, and long before that the model.
TEMPERATURE_RANGE = (1.0, 1e9)


def check_temperature(temperature_kelvin: float, fix: str = "set system.temperature_kelvin=6000 for example") -> None:
    """Refuse what is no temperature of classical protons.

    Args:
        temperature_kelvin: T.
        fix: end of the message.

    Raises:
        ValueError: T is outside TEMPERATURE_RANGE, or no number.
    """
    least, most = TEMPERATURE_RANGE
    if not least <= temperature_kelvin <= most:
        raise SettingError(
            "temperature_kelvin", temperature_kelvin, f"must be positive and finite, from {least:g} to {most:g} K", fix
        )
