"""Who is in the cell: the nuclei with their mass, and the electrons with their spins."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Integral, Real

from lightning_vfe.errors import SettingError
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.units import NUCLEAR_MASSES

NO_PROTONS = "none"
PROTONS = ("sampled", "fixed", NO_PROTONS)
"""Values of the key system.protons. Without protons the electrons move in a uniform background: jellium."""

LIGHTEST_NUCLEUS = 100.0
"""In electron masses: lighter particles are no classical nuclei."""


@dataclass(frozen=True)
class System:
    """N nuclei of charge one and N electrons in a periodic cube; or N electrons in a uniform background, jellium.

    Args:
        num_atoms: number N of nuclei, a positive integer.
        nucleus: H, D or T, or the mass of a nucleus in electron masses. The mass of classical nuclei enters
            only the momentum part of F: kT [ln N! + 3N ln lambda_dB].
        num_up: electrons with spin up; None is half of them, rounded up.
        protons: "sampled", "fixed" or "none", as the key system.protons. "none" is jellium: a uniform positive charge
            replaces the nuclei.

    Attributes:
        nuclear_mass: in electron masses; not used without nuclei.
        num_down: electrons with spin down, N - num_up: the cell is neutral.

    Raises:
        ValueError: num_atoms is not a positive integer, the nucleus is unknown, num_up is not between 0 and N,
            or protons is unknown.
    """

    num_atoms: int
    nucleus: str | float = "H"
    num_up: int | None = None
    protons: str = "sampled"
    nuclear_mass: float = field(init=False)
    num_down: int = field(init=False)

    def __post_init__(self) -> None:
        PeriodicCell(self.num_atoms, 1.0)  # refuses impossible numbers
        object.__setattr__(self, "nuclear_mass", _mass(self.nucleus))
        if self.protons not in PROTONS:
            raise SettingError("protons", self.protons, "is unknown", f"choose {', '.join(PROTONS)}")
        up = (self.num_atoms + 1) // 2 if self.num_up is None else self.num_up
        if isinstance(up, bool) or not (isinstance(up, Integral) and 0 <= up <= self.num_atoms):
            raise SettingError("num_up", up, f"must lie between 0 and {self.num_atoms}, the number of electrons")
        object.__setattr__(self, "num_up", int(up))
        object.__setattr__(self, "num_down", self.num_atoms - int(up))

    @property
    def cell(self) -> PeriodicCell:
        """The cell in units of rs, the same at every density: L = (4 pi N / 3)^(1/3)."""
        return PeriodicCell(self.num_atoms, 1.0)

    @property
    def num_protons(self) -> int:
        """N; 0 in jellium."""
        return 0 if self.protons == NO_PROTONS else self.num_atoms

    @property
    def name(self) -> str:
        """The element or isotope in words, or jellium."""
        if self.protons == NO_PROTONS:
            return "jellium"
        words = {"H": "hydrogen", "D": "deuterium", "T": "tritium"}
        return words.get(str(self.nucleus), f"hydrogen of nuclear mass {self.nuclear_mass:g}")


def _mass(nucleus: object) -> float:
    """Mass in electron masses of a name or a number."""
    if isinstance(nucleus, str) and nucleus in NUCLEAR_MASSES:
        return NUCLEAR_MASSES[nucleus]
    is_number = isinstance(nucleus, Real) and not isinstance(nucleus, bool)
    if is_number and LIGHTEST_NUCLEUS <= float(nucleus) < float("inf"):  # type: ignore[arg-type]
        return float(nucleus)  # type: ignore[arg-type]
    names = ", ".join(f"{name} ({mass:g})" for name, mass in NUCLEAR_MASSES.items())
    raise SettingError(
        "nucleus", nucleus, f"must be one of {names}, or a mass of at least {LIGHTEST_NUCLEUS:g} electron masses"
    )
