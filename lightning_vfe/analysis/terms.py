"""Names, symbols and units of what a run reports, and how a number with its error is written."""

from __future__ import annotations

import math
from typing import NamedTuple


class Term(NamedTuple):
    """One reported quantity.

    Attributes:
        meaning: in words.
        symbol: in matplotlib's math notation.
        unit: in plain text.
        plain_symbol: in plain text.
    """

    meaning: str
    symbol: str
    unit: str
    plain_symbol: str

    @property
    def title(self) -> str:
        """Symbol and words, for a figure."""
        return f"{self.symbol}  {self.meaning}"

    @property
    def plain_title(self) -> str:
        """Symbol and words, for a table in print."""
        return f"{self.plain_symbol}  {self.meaning}"

    @property
    def axis_unit(self) -> str:
        """The unit in matplotlib's math notation."""
        return self.unit.replace("k_B", r"$k_\mathrm{B}$").replace("Ha^2", "Ha$^2$").replace("/", " / ")


TERMS = {
    "free_energy_per_atom": Term("free energy", "$F$", "Ha/atom", "F"),
    "energy_per_atom": Term("energy", "$E$", "Ha/atom", "E"),
    "entropy_per_atom": Term("entropy", "$S$", "k_B/atom", "S"),
    "kinetic_energy_per_atom": Term("kinetic energy", "$K$", "Ha/atom", "K"),
    "electron_kinetic_energy_per_atom": Term("kinetic energy, electrons", r"$K_\mathrm{e}$", "Ha/atom", "K_e"),
    "v_pp_per_atom": Term("proton-proton", r"$V_\mathrm{pp}$", "Ha/atom", "V_pp"),
    "v_pe_per_atom": Term("proton-electron", r"$V_\mathrm{pe}$", "Ha/atom", "V_pe"),
    "v_ee_per_atom": Term("electron-electron", r"$V_\mathrm{ee}$", "Ha/atom", "V_ee"),
    "pressure_gpa": Term("virial pressure", "$P$", "GPa", "P"),
    "base_free_energy_per_atom": Term("base free energy", r"$-kT\,\ln Z_\mathrm{ML}$", "Ha/atom", "-kT ln Z_ML"),
    "base_energy_per_atom": Term("base energy", r"$E_\mathrm{ML}(z)$", "Ha/atom", "E_ML(z)"),
    "log_det_per_atom": Term("flow log-determinant", r"$\ln|\det\,dz/dx|$", "1/atom", "ln|det dz/dx|"),
    "molecular_fraction": Term("protons in molecules", r"$x_\mathrm{mol}$", "1", "x_mol"),
    "finite_size_free_energy_per_atom": Term("finite-size correction of F, two-body", r"$\Delta F$", "Ha/atom", "dF"),
    "finite_size_energy_per_atom": Term("finite-size correction of E, two-body", r"$\Delta E$", "Ha/atom", "dE"),
    "finite_size_kinetic_energy_per_atom": Term("finite-size correction, kinetic", r"$\Delta K$", "Ha/atom", "dK"),
    "finite_size_potential_energy_per_atom": Term("finite-size correction, Coulomb", r"$\Delta V$", "Ha/atom", "dV"),
    "finite_size_pressure_gpa": Term("finite-size correction of P, two-body", r"$\Delta P$", "GPa", "dP"),
    "local_energy_variance": Term("variance, whole cell", r"$\sigma^2(E_\mathrm{loc})$", "Ha^2", "var E_loc"),
}
"""By their names in metrics.csv and summary.json, in the order of tables. The variance is the whole cell's."""


def value_with_error(value: float, error: float) -> str:
    """`value ± error`, both rounded to two digits of the error; four digits of a value of unknown error or error 0."""
    if not math.isfinite(value):
        return "not reported"
    if not math.isfinite(error) or error <= 0.0:
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    decimals = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{decimals}f} \N{PLUS-MINUS SIGN} {error:.{decimals}f}"


def value_in_brackets(value: float, error: float) -> str:
    """`value(error)`, the error in units of the last digit: -0.97825(43), 7.805(6), -190.8(1.6)."""
    if not math.isfinite(value):
        return "-"
    if not math.isfinite(error) or error <= 0.0:
        return f"{value:.4g}"
    decimals = max(0, 1 - math.floor(math.log10(error)))
    shown = round(error * 10**decimals) if error < 1.0 else f"{error:.{decimals}f}"
    return f"{value:.{decimals}f}({shown})"
