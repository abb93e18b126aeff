"""The Boltzmann distribution of a potential as base density."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_vfe.errors import SettingError
from lightning_vfe.models.base.boltzmann_states import BoltzmannStates
from lightning_vfe.models.base.log_z import find_entry, log_z_file
from lightning_vfe.models.contracts import PotentialEnergy
from lightning_vfe.models.potential.potential import Potential
from lightning_vfe.models.potential.storage import load_potential, potential_hash
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.state_point import WalkerStates
from lightning_vfe.physics.strata import Strata
from lightning_vfe.physics.system import System
from lightning_vfe.physics.units import KELVIN_TO_HARTREE, check_temperature
from lightning_vfe.resources import data_file


class BoltzmannBase(nn.Module):
    r"""p_base(z) = exp(-E_ML(z)/kT) / Z_ML, normalised over ordered protons in the cell, at one state point.

    The potential is not trained. Its value and, to train the flow, its gradient with respect to z are used.

    Args:
        cell: the periodic cell.
        potential: E_ML, a `Potential` or any module that gives energies.
        temperature_kelvin: T.
        log_z: ln Z_ML, the logarithm of the integral of exp(-E_ML/kT) over all N protons in the cell, lengths in bohr.
        log_z_error: its standard error.

    Raises:
        ValueError: T is not positive, ln Z is not finite, or the potential was not trained at this density.
    """

    def __init__(
        self,
        cell: PeriodicCell,
        potential: PotentialEnergy,
        temperature_kelvin: float,
        log_z: float,
        log_z_error: float,
    ) -> None:
        super().__init__()
        check_temperature(temperature_kelvin)
        if not (math.isfinite(log_z) and math.isfinite(log_z_error) and log_z_error >= 0):
            raise SettingError("log_z", log_z, f"+- {log_z_error} must be finite", "run lightning-vfe log-z again")
        if isinstance(potential, Potential):
            # Any protons do: this looks at the density only.
            potential.check(torch.zeros(cell.num_atoms, 3), cell)
        self.cell = cell
        self.potential = potential.requires_grad_(False).train(False)
        self.kT = KELVIN_TO_HARTREE * temperature_kelvin
        self.log_z, self.log_z_error = log_z, log_z_error

    @classmethod
    def from_files(
        cls,
        system: System,
        strata: Strata,
        potential_path: str | Path,
        log_z_path: str | Path | None = None,
    ) -> BoltzmannBase | BoltzmannStates:
        """The base of a stored potential, with the ln Z that `lightning-vfe log-z` has computed.

        Args:
            system: the protons.
            strata: of the run; several state points give a `BoltzmannStates`.
            potential_path: file of the potential; for a shipped one its path inside data/.
            log_z_path: file of ln Z; left out, the one beside the potential.

        Raises:
            ValueError: a file is missing or damaged, or holds no converged ln Z of these parameters of the potential at
                this N and one of the rs and T, or a state point is outside the region of the potential's labels.
        """
        file = data_file(potential_path)
        try:
            potential, _ = load_potential(file)
        except SettingError as error:
            raise error.at("potential_path") from None
        cells = [point.cell(system.num_atoms) for point in strata.points]
        # Refuses a wrong state first: no integration would help there.
        for point, cell in zip(strata.points, cells, strict=True):
            potential.check(torch.zeros(cell.num_atoms, 3), cell)
            potential.check_temperature(point.temperature_kelvin)
        stored, own_hash = log_z_file(file) if log_z_path is None else Path(log_z_path), potential_hash(potential)
        entries = [
            find_entry(stored, file, own_hash, cell, point.temperature_kelvin)
            for point, cell in zip(strata.points, cells, strict=True)
        ]
        if len(entries) == 1:
            (entry,) = entries
            return cls(cells[0], potential, entry.temperature_kelvin, entry.log_z, entry.log_z_error)
        log_z, errors = [entry.log_z for entry in entries], [entry.log_z_error for entry in entries]
        return BoltzmannStates(system.num_atoms, strata.points, potential, log_z, errors)

    def train(self, mode: bool = True) -> BoltzmannBase:
        """Set the mode; the potential stays in evaluation mode."""
        super().train(mode)
        self.potential.train(False)
        return self

    def energy(self, z: Tensor, states: WalkerStates | None = None) -> Tensor:
        """E_ML(z) in Ha (...) of base protons (..., N, 3)."""
        del states  # the base has one state point
        return self.potential.energy(z, self.cell)

    def log_prob(self, z: Tensor, states: WalkerStates | None = None, energy: Tensor | None = None) -> Tensor:
        """ln p_base(z) = -E_ML(z)/kT - ln Z_ML (...) of base protons (..., N, 3); `energy` is E_ML(z) if known."""
        del states  # the base has one state point
        return -(self.energy(z) if energy is None else energy) / self.kT - self.log_z

    def free_energy(self, states: WalkerStates) -> Tensor:
        """-kT ln Z_ML in Ha, whole cell.  # (...)"""
        return torch.full_like(states.kT, -self.kT * self.log_z)

    def free_energy_error(self, states: WalkerStates) -> Tensor:
        """Standard error of -kT ln Z_ML in Ha, whole cell.  # (...)"""
        return torch.full_like(states.kT, self.kT * self.log_z_error)
