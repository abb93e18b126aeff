"""E_psi(x) of a trained wavefunction as a calculator of ASE."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from typing_extensions import override

from lightning_vfe.errors import SettingError
from lightning_vfe.models.potential.calculator import hydrogen_in_cube
from lightning_vfe.physics.strata import Strata
from lightning_vfe.physics.units import BOHR_TO_ANGSTROM, HARTREE_TO_EV
from lightning_vfe.state.electron_averages import ElectronMonteCarlo
from lightning_vfe.state.variational_state import VariationalState

SAME_DENSITY = 1e-4
"""Relative deviation from the rs of the run that is taken for rounding."""


class EnergySurfaceCalculator(Calculator):
    """E_psi(x) averaged over the twists, by Monte Carlo over the electrons: eV and eV/angstrom.

    `results` also has `energy_error`. Forces are Hellmann-Feynman forces, see `hellmann_feynman_forces`: they are
    derivatives of E_psi only where psi is at its minimum. Each call has the same random numbers, so that E is a
    function of the positions, with noise.

    Args:
        state: networks of the run; its walkers stay.
        number: of the state point.
        num_electron_walkers: B at each twist, at least 2.
        equilibration_sweeps: sweeps that are thrown away.
        num_sweeps: measured sweeps, at least 2.
        seed: of the electrons.
    """

    implemented_properties = ["energy", "forces"]  # noqa: RUF012  as ASE has it

    def __init__(
        self,
        state: VariationalState,
        number: int = 0,
        num_electron_walkers: int = 32,
        equilibration_sweeps: int = 20,
        num_sweeps: int = 100,
        seed: int = 42,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # of ASE
        self._point, self._num_atoms = state.strata.points[number], state.system.num_atoms
        strata, networks = Strata((self._point,), state.strata.twists), (state.wavefunction, state.sampler)
        counts = num_electron_walkers, equilibration_sweeps, num_sweeps, seed
        self._make = functools.partial(ElectronMonteCarlo, state.system, strata, *networks, *counts)

    @override
    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Fill `results`.

        Raises:
            SettingError: the atoms are not those of the state point in a periodic cube.
            FloatingPointError: a local energy is not finite.
        """
        super().calculate(atoms, list(properties), list(system_changes))  # type: ignore[no-untyped-call]  # of ASE
        assert self.atoms is not None
        cell, x = hydrogen_in_cube(self.atoms)
        if cell.num_atoms != self._num_atoms or abs(cell.rs / self._point.rs - 1.0) > SAME_DENSITY:
            found, own = f"N = {cell.num_atoms}, rs = {cell.rs:.5g}", f"N = {self._num_atoms}, rs = {self._point.rs:g}"
            raise SettingError("atoms", found, f"are not those of the run, {own}")
        averages = self._make(forces="forces" in properties).averages(x[None])[0]
        if averages.energy is None:
            raise FloatingPointError("the local energy is not finite")
        self.results: dict[str, Any] = {"energy": averages.energy.value * HARTREE_TO_EV}
        self.results["energy_error"] = averages.energy.error * HARTREE_TO_EV
        if averages.forces is not None:
            self.results["forces"] = averages.forces.cpu().numpy() * (HARTREE_TO_EV / BOHR_TO_ANGSTROM)
