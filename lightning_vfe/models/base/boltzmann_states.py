"""The Boltzmann distributions of one potential at several state points, as base density."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_vfe.models.contracts import PotentialEnergy
from lightning_vfe.models.potential.potential import is_transformed
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.state_point import StatePoint, WalkerStates


class BoltzmannStates(nn.Module):
    r"""p_base(z) = exp(-E_ML(z)/kT) / Z_ML(rs, T), normalised over ordered protons, at the state point of each walker.

    Args:
        num_atoms: N.
        points: the S state points.
        potential: E_ML, frozen; one for all of them.
        log_z: ln Z_ML of each, the integral of exp(-E_ML/kT) over all N protons in its cell, lengths in bohr.  # S
        log_z_errors: their standard errors.  # S
    """

    def __init__(
        self,
        num_atoms: int,
        points: Sequence[StatePoint],
        potential: PotentialEnergy,
        log_z: Sequence[float],
        log_z_errors: Sequence[float],
    ) -> None:
        super().__init__()
        self.points, self.potential = tuple(points), potential.requires_grad_(False).train(False)
        self.log_z, self.log_z_errors = list(log_z), list(log_z_errors)
        self.densities = sorted({point.rs for point in self.points})
        self.cells = [PeriodicCell(num_atoms, rs) for rs in self.densities]

    def train(self, mode: bool = True) -> BoltzmannStates:
        """Set the mode; the potential stays in evaluation mode."""
        super().train(mode)
        self.potential.train(False)
        return self

    def energy(self, z: Tensor, states: WalkerStates) -> Tensor:
        """E_ML(z) in Ha (...) of base protons (..., N, 3)."""
        if len(self.cells) == 1:
            return self.potential.energy(z, self.cells[0])
        densities = z.new_tensor(self.densities)
        number = (states.rs[..., None].to(z) - densities).abs().argmin(-1).expand(z.shape[:-2])
        if is_transformed(z):
            return self._everywhere(z, number)
        flat, number = z.reshape(-1, *z.shape[-2:]), number.reshape(-1)
        rows = [(number == which).nonzero().flatten() for which in range(len(self.cells))]
        parts = [self.potential.energy(flat[own], cell) for own, cell in zip(rows, self.cells, strict=True) if len(own)]
        return torch.cat(parts)[torch.cat(rows).argsort()].reshape(z.shape[:-2])

    def _everywhere(self, z: Tensor, number: Tensor) -> Tensor:
        """The energy under torch.func, where walkers cannot be sorted: in all cells, of which each takes its own."""
        total = torch.zeros_like(z[..., 0, 0])
        lengths = z.new_tensor([cell.length for cell in self.cells])
        for which, cell in enumerate(self.cells):
            # in units of rs the protons fit into each cell, so that no energy is infinite
            scaled = z * (cell.length / _chosen(lengths, number))[..., None, None]
            total = torch.where(number == which, self.potential.energy(scaled, cell), total)
        return total

    def log_prob(self, z: Tensor, states: WalkerStates, energy: Tensor | None = None) -> Tensor:
        """ln p_base(z) = -E_ML(z)/kT - ln Z_ML (...) of base protons (..., N, 3); `energy` is E_ML(z) if known."""
        return -(self.energy(z, states) if energy is None else energy) / states.kT - self._of_states(self.log_z, states)

    def free_energy(self, states: WalkerStates) -> Tensor:
        """-kT ln Z_ML in Ha, whole cell.  # (...)"""
        return -states.kT * self._of_states(self.log_z, states)

    def free_energy_error(self, states: WalkerStates) -> Tensor:
        """Standard error of -kT ln Z_ML in Ha, whole cell.  # (...)"""
        return states.kT * self._of_states(self.log_z_errors, states)

    def _of_states(self, values: Sequence[float], states: WalkerStates) -> Tensor:
        """A number of each walker's state point.  # (...)"""
        rs, kT = (states.rs.new_tensor([getattr(point, name) for point in self.points]) for name in ("rs", "kT"))
        distance = (states.rs[..., None] / rs - 1.0).abs() + (states.kT[..., None] / kT - 1.0).abs()
        return _chosen(states.rs.new_tensor(values), distance.argmin(-1))


def _chosen(values: Tensor, number: Tensor) -> Tensor:
    """values[number], also for the single numbers that torch.func.vmap shows."""
    return values.index_select(0, number.reshape(-1)).reshape(number.shape)
