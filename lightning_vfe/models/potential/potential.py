"""What every potential of the protons can do: energy, forces and pressure."""

from __future__ import annotations

import abc
import functools

import torch
from torch import Tensor, nn

from lightning_vfe.errors import SettingError
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.chunking import map_chunks, max_chunk_elements
from lightning_vfe.physics.neighbors import NeighborList

# Numbers that one atom takes up in a temporary: tens of pairs with tens of features each.
ELEMENTS_PER_ATOM = 1024


class Potential(nn.Module, abc.ABC):
    """E(z) of protons in a periodic cell: a sum over atoms, so that one potential serves all cells.

    All methods take any leading dimensions and are usable under torch.func (grad, vmap, jacfwd).

    Attributes:
        rs_range: least and largest rs in bohr at which the potential may be used, or None for any.
        temperature_range: least and largest temperature in K of the region that it was labelled in, or None for any.
        cutoff: range in bohr; None for a potential without a range of its own.
    """

    rs_range: tuple[float, float] | None = None
    temperature_range: tuple[float, float] | None = None
    cutoff: float | None = None

    @abc.abstractmethod
    def energy(self, z: Tensor, cell: PeriodicCell, dilation: Tensor | None = None) -> Tensor:
        """E(z) of the whole cell.

        Args:
            z: protons in bohr, any image.  # (..., N, 3)
            cell: the periodic cell.
            dilation: factor on all lengths of cell and positions. It is 1; the pressure is a derivative by it.  # (...)

        Returns:
            Energy in Ha.  # (...)

        Raises:
            ValueError: z does not belong to the cell, or rs is outside rs_range.
        """

    def energy_of_pairs(self, pairs: NeighborList) -> Tensor:
        """E in Ha (...) of a list of pairs, for potentials of distances alone.

        Raises:
            NotImplementedError: this potential needs more than distances.
        """
        raise NotImplementedError(f"a {type(self).__name__} is no function of a list of pairs")

    def forward(self, z: Tensor, cell: PeriodicCell, dilation: Tensor | None = None) -> Tensor:
        """The same as `energy`, so that wrappers of modules work."""
        return self.energy(z, cell, dilation)

    def forces(self, z: Tensor, cell: PeriodicCell) -> Tensor:
        """-dE/dz in Ha/bohr (..., N, 3), without a graph."""
        return self.energy_and_forces(z, cell)[1]

    def energy_and_forces(self, z: Tensor, cell: PeriodicCell, create_graph: bool = False) -> tuple[Tensor, Tensor]:
        """E and -dE/dz by automatic differentiation.

        Args:
            z: protons in bohr, any image.  # (..., N, 3)
            cell: the periodic cell.
            create_graph: keep both differentiable with respect to the parameters (and z, where it requires that).

        Returns:
            Energy in Ha  # (...);  forces in Ha/bohr  # (..., N, 3)
        """
        if is_transformed(z):
            # torch.autograd.grad is not available there, and the transform decides what stays differentiable
            gradient, energy = torch.func.grad(self._summed_energy, has_aux=True)(z, cell)
            return energy, -gradient
        if create_graph:
            return self._differentiate(z, cell, create_graph=True)
        run = functools.partial(self._differentiate, cell=cell, create_graph=False)
        energy, forces = map_chunks(run, _configurations_at_once(z), z)
        return energy, forces

    def pressure(self, z: Tensor, cell: PeriodicCell) -> Tensor:
        """The potential's part of the pressure, -dE/dV at fixed scaled coordinates, without N kT/V of the protons.

            P = -1/(3 V) dE/ds at s = 1, all lengths multiplied by s.

        Args:
            z: protons in bohr, any image.  # (..., N, 3)
            cell: the periodic cell.

        Returns:
            Pressure in Ha/bohr^3.  # (...)
        """
        (slope,) = map_chunks(functools.partial(self._dilate, cell=cell), _configurations_at_once(z), z)
        return slope / (-3.0 * cell.volume)

    def _dilate(self, z: Tensor, cell: PeriodicCell) -> tuple[Tensor, ...]:
        """dE/ds at s = 1."""
        with torch.enable_grad():
            dilation = torch.ones_like(z[..., 0, 0]).requires_grad_()
            return torch.autograd.grad(self.energy(z.detach(), cell, dilation).sum(), dilation)

    def _differentiate(self, z: Tensor, cell: PeriodicCell, create_graph: bool) -> tuple[Tensor, Tensor]:
        """E and -dE/dz by reverse mode."""
        with torch.enable_grad():
            variables = z if create_graph and z.requires_grad else z.detach().requires_grad_()
            energy = self.energy(variables, cell)
            (gradient,) = torch.autograd.grad(energy.sum(), variables, create_graph=create_graph)
        return (energy, -gradient) if create_graph else (energy.detach(), -gradient)

    def _summed_energy(self, z: Tensor, cell: PeriodicCell) -> tuple[Tensor, Tensor]:
        """The sum over all configurations, and the single energies."""
        energy = self.energy(z, cell)
        return energy.sum(), energy

    def check_temperature(self, temperature_kelvin: float) -> None:
        """Raise a SettingError if the temperature of the protons is outside the region of the labels."""
        if self.temperature_range is None:
            return
        low, high = self.temperature_range
        if not low * (1.0 - 1e-9) <= temperature_kelvin <= high * (1.0 + 1e-9):
            raise SettingError(
                "temperature_kelvin",
                temperature_kelvin,
                f"is outside the temperatures {low:g} to {high:g} K that the potential was labelled at",
                "set system.temperature_kelvin inside, or train a potential on labels at this temperature; "
                "base=uniform needs no potential",
            )

    def check(self, z: Tensor, cell: PeriodicCell) -> None:
        """Raise a ValueError if the shape of z, the density or the size of the cell does not fit."""
        if z.shape[-2:] != (cell.num_atoms, 3) or not z.is_floating_point():
            raise ValueError(
                f"z of shape {tuple(z.shape)} and type {z.dtype} must be real numbers of shape "
                f"(..., {cell.num_atoms}, 3): num_atoms = {cell.num_atoms} positions in bohr"
            )
        if self.cutoff is not None:
            cell.check_cutoff(self.cutoff, "cutoff", "4.0 is usual")
        if self.rs_range is None:
            return
        low, high = self.rs_range
        if not low * (1.0 - 1e-9) <= cell.rs <= high * (1.0 + 1e-9):
            raise SettingError(
                "rs",
                cell.rs,
                f"is outside the densities rs = {low} to {high} that the potential was trained on",
                "set system.rs inside, or train a potential on labels at this density (lightning-vfe label, then fit); "
                "base=uniform needs no potential",
            )


def is_transformed(z: Tensor) -> bool:
    """Whether torch.func transforms the calling function: it then refuses to let a tensor require gradients."""
    try:
        z.detach().requires_grad_()
    except RuntimeError:
        return True
    return False


def _configurations_at_once(z: Tensor) -> int:
    """How many configurations fit into the bound for temporaries; a derivative without a graph needs no more."""
    return max(1, max_chunk_elements(z) // (ELEMENTS_PER_ATOM * max(1, z.shape[-2])))
