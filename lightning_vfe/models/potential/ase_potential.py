"""Any ASE calculator as a potential of the protons."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from lightning_vfe.errors import SettingError, one_line
from lightning_vfe.models.potential.potential import Potential
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.units import BOHR_TO_ANGSTROM, HARTREE_TO_EV

STEP = 1e-4
"""Relative change of all lengths by which a calculator without stress is differentiated."""


class ASEPotential(Potential):
    """E(z) of an ASE calculator, with its forces as derivatives.

    One configuration is computed after the other. First derivatives exist, second ones do not, and torch.func.vmap does
    not apply. ASE computes in float64; the results have the dtype of z.

    Args:
        calculator: dotted name of the calculator's class, such as ase.calculators.lj.LennardJones. A potential that is
            read from a file may name classes of the package ase only, since importing a module runs its code.
        arguments: of the class, in ASE's units (angstrom, eV).
        rs_range: densities in bohr at which it may be used; None for any.

    Raises:
        ValueError: there is no such class, or it refuses the arguments.
    """

    def __init__(
        self,
        calculator: str,
        arguments: Mapping[str, Any] | None = None,
        rs_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self.calculator_name, self.arguments = calculator, dict(arguments or {})
        self.rs_range = rs_range
        module, _, name = calculator.rpartition(".")
        try:
            self.calculator = getattr(importlib.import_module(module), name)(**self.arguments)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise SettingError("calculator", calculator, f"cannot be used: {one_line(error)}") from error

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments that build this potential again."""
        return {"calculator": self.calculator_name, "arguments": self.arguments}

    def energy(self, z: Tensor, cell: PeriodicCell, dilation: Tensor | None = None) -> Tensor:
        """E(z) in Ha (...) of protons (..., N, 3) in bohr; see `Potential.energy`."""
        self.check(z, cell)
        one = torch.ones_like(z[..., 0, 0]) if dilation is None else dilation
        energy: Tensor = _Energy.apply(  # type: ignore[no-untyped-call]  # of torch
            z, one, self, cell.length, dilation is not None
        )
        return energy

    def evaluate(self, z: np.ndarray, length: float, with_virial: bool) -> tuple[float, np.ndarray, float]:
        """E in Ha, forces in Ha/bohr and dE/ds in Ha of all lengths times s, of one configuration (N, 3) in bohr."""
        atoms = Atoms(f"H{len(z)}", z * BOHR_TO_ANGSTROM, cell=[length * BOHR_TO_ANGSTROM] * 3, pbc=True)
        atoms.calc = self.calculator
        energy = atoms.get_potential_energy() / HARTREE_TO_EV
        forces = atoms.get_forces() / HARTREE_TO_EV * BOHR_TO_ANGSTROM
        return energy, forces, self._virial(atoms) / HARTREE_TO_EV if with_virial else 0.0

    def _virial(self, atoms: Atoms) -> float:
        """dE/ds in eV."""
        if "stress" in self.calculator.implemented_properties:
            return float(atoms.get_volume() * atoms.get_stress(voigt=False).trace())
        energies = []
        for sign in (1.0, -1.0):
            scaled = atoms.copy()
            scaled.set_cell(atoms.cell * (1.0 + sign * STEP), scale_atoms=True)
            scaled.calc = self.calculator
            energies.append(scaled.get_potential_energy())
        virial: float = (energies[0] - energies[1]) / (2.0 * STEP)
        return virial


class _Energy(torch.autograd.Function):
    """The energies of many configurations, with derivatives by positions and by a dilation of one."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, dilation: Tensor, potential: ASEPotential, length: float, with_virial: bool
    ) -> Tensor:
        del dilation  # it is one
        flat = z.detach().reshape(-1, *z.shape[-2:]).double().cpu().numpy()
        found = [potential.evaluate(each, length, with_virial) for each in flat]
        energies, forces, virials = (np.array(column) for column in zip(*found, strict=True))
        ctx.save_for_backward(
            torch.as_tensor(forces).to(z).view_as(z), torch.as_tensor(virials).to(z).view(z.shape[:-2])
        )
        return torch.as_tensor(energies).to(z).view(z.shape[:-2])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        forces, virials = ctx.saved_tensors
        return -slope[..., None, None] * forces, slope * virials, None, None, None
