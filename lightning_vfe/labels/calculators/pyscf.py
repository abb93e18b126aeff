"""Density functional theory with Gaussian orbitals by PySCF, which `pip install pyscf` brings."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from lightning_vfe.errors import SettingError
from lightning_vfe.physics.units import BOHR_TO_ANGSTROM, HARTREE_TO_EV, KELVIN_TO_HARTREE, check_temperature


class PySCFCalculator(Calculator):
    """Periodic Kohn-Sham theory with GTH pseudopotentials, multigrid integration and Fermi-Dirac smearing.

    `free_energy` is E - TS, to which the forces belong, and `energy` is E; spins are paired; there is no stress.
    PySCF has no all-electron periodic forces. At Gamma the multigrid code gives the forces as well (N = 4: 20 s with
    gth-dzvp, one core); with more k-points they come from the plain grid, and take minutes already for N = 2.

    Measured at rs = 1.25 and 6000 K against pw.x with a PAW potential, same k-points: gth-dzvp is 1.3 to 1.5 mHa per
    atom above it, its forces within 2.5 mHa/bohr; gth-tzv2p 0.7 and 1.0.

    Args:
        temperature_kelvin: electron temperature in K.
        basis: a GTH basis of PySCF.
        xc: functional; the pseudopotential is gth-pbe.
        kpts: grid of k-points with Gamma.
        conv_tol: required accuracy of the energy, whole cell, in Ha.
        max_scf_steps: after that many iterations the calculation has failed.
        num_threads: of PySCF.

    Raises:
        ValueError: PySCF is missing, or a setting is out of its range.
    """

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012  (ASE types it so)

    def __init__(
        self,
        temperature_kelvin: float,
        basis: str = "gth-dzvp",
        xc: str = "pbe",
        kpts: Sequence[int] = (1, 1, 1),
        conv_tol: float = 1e-9,
        max_scf_steps: int = 100,
        num_threads: int = 1,
    ) -> None:
        check_temperature(temperature_kelvin)
        if find_spec("pyscf") is None:
            raise ValueError("calculator = pyscf needs PySCF; install it with: pip install pyscf")
        if len(kpts) != 3 or min(kpts) < 1:
            raise SettingError("kpts", list(kpts), "must be three positive integers such as [2, 2, 2]")
        super().__init__()  # type: ignore[no-untyped-call]  # of ASE
        self.temperature_kelvin = temperature_kelvin
        self.basis = basis
        self.xc = xc
        self.kpts = list(kpts)
        self.conv_tol = conv_tol
        self.max_scf_steps = max_scf_steps
        self.num_threads = num_threads

    @property
    def program_version(self) -> str:
        """PySCF and its version."""
        import pyscf

        return f"PySCF {pyscf.__version__}"

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy", "forces"),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Energies, and forces where they are asked for.

        Raises:
            RuntimeError: no self-consistent solution, or an odd number of electrons.
        """
        super().calculate(atoms, list(properties), list(system_changes))  # type: ignore[no-untyped-call]  # of ASE
        assert self.atoms is not None
        if len(self.atoms) % 2:
            raise RuntimeError(f"{len(self.atoms)} electrons cannot be paired; take an even number of atoms")
        mean_field = self._solve(self.atoms)
        free_energy = mean_field.e_tot - mean_field.sigma * mean_field.entropy
        self.results["energy"] = float(mean_field.e_tot) * HARTREE_TO_EV
        self.results["free_energy"] = float(free_energy) * HARTREE_TO_EV
        if "forces" in properties:
            self.results["forces"] = -self._gradient(mean_field) * (HARTREE_TO_EV / BOHR_TO_ANGSTROM)

    def _solve(self, atoms: Atoms) -> Any:
        """The converged mean field."""
        from pyscf import lib
        from pyscf.pbc import dft, gto, scf

        lib.num_threads(self.num_threads)
        cell = gto.Cell(
            atom=list(zip(atoms.get_chemical_symbols(), atoms.get_positions() / BOHR_TO_ANGSTROM, strict=True)),
            a=np.asarray(atoms.cell) / BOHR_TO_ANGSTROM,
            unit="Bohr",
            basis=self.basis,
            pseudo="gth-pbe",
            verbose=0,
        )
        cell.build()
        mean_field = dft.RKS(cell) if self._is_gamma else dft.KRKS(cell, cell.make_kpts(self.kpts))
        mean_field.xc = self.xc
        mean_field = scf.addons.smearing_(
            mean_field.multigrid_numint(), sigma=KELVIN_TO_HARTREE * self.temperature_kelvin, method="fermi"
        )
        mean_field.conv_tol = self.conv_tol
        mean_field.max_cycle = self.max_scf_steps
        mean_field.kernel()
        if not mean_field.converged:
            raise RuntimeError(f"PySCF: no convergence after {self.max_scf_steps} iterations")
        return mean_field

    def _gradient(self, mean_field: Any) -> np.ndarray:
        """dF/d positions in Ha/bohr.  # (N, 3)"""
        if not self._is_gamma:
            from pyscf.pbc.dft.numint import KNumInt

            # the multigrid code has no gradients with k-points; the plain grid has the same points
            mean_field._numint = KNumInt()
        return np.asarray(mean_field.Gradients().kernel())

    @property
    def _is_gamma(self) -> bool:
        return self.kpts == [1, 1, 1]
