"""E_loc(x, r): the local energy of the electrons and protons, term by term."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_vfe.physics.blocks import MAX_ELEMENTS_CPU, in_parts, max_elements
from lightning_vfe.physics.ewald import Ewald
from lightning_vfe.physics.kinetic import kinetic_energy

TANGENT_BYTES = 2**24
"""Memory on a CPU that the derivatives of one chunk of walkers may take, about: four tensors of 3N N numbers for each
of 32 features. An accelerator is given more in the proportion of blocks.max_elements."""


class LocalEnergy(NamedTuple):
    """Terms of E_loc for each electron walker, whole cell, Ha."""

    kinetic: Tensor  # (W, B) complex; only its mean over |psi|^2 is real
    v_pp: Tensor  # (W, B)
    v_pe: Tensor  # (W, B)
    v_ee: Tensor  # (W, B)

    @property
    def total(self) -> Tensor:
        """E_loc = kinetic + V_pp + V_pe + V_ee, complex. # (W, B)"""
        return self.kinetic + (self.v_pp + self.v_pe + self.v_ee)


@torch.no_grad()
def local_energy(
    ewald: Ewald, log_psi: Callable[[Any, Any, Tensor], Any], protons: Tensor, electrons: Tensor, twists: Tensor
) -> LocalEnergy:
    r"""E_loc = -1/2 sum_i [lap_i ln psi + (grad_i ln psi)^2] + V_ee + V_pe + V_pp with full Ewald energies.

    Args:
        ewald: Coulomb energies of the cell.
        log_psi: (protons (W, 1, N, 3), electrons (W, B, N, 3), twists (W, 1, 3)) -> complex ln psi (W, B).
        protons: positions in bohr. # (W, N, 3)
        electrons: positions in bohr. # (W, B, N, 3)
        twists: fractional. # (W, 3)
    """
    kinetic = kinetic_energies(log_psi, protons, electrons, twists)
    coulomb = ewald.energies(protons.unsqueeze(1), electrons)
    return LocalEnergy(kinetic, coulomb.v_pp.expand(kinetic.shape), coulomb.v_pe, coulomb.v_ee)


@torch.no_grad()
def kinetic_energies(
    log_psi: Callable[[Any, Any, Tensor], Any], protons: Tensor, electrons: Tensor, twists: Tensor
) -> Tensor:
    """The kinetic term of local_energy alone, complex, Ha.  # (W, B)

    A bounded number of configurations at a time: large tensors would not only take memory, but leave the caches.
    """
    num_atoms = electrons.shape[-2]
    available = TANGENT_BYTES * (max_elements(electrons) // MAX_ELEMENTS_CPU)
    limit = max(1, available // (4 * 32 * 3 * num_atoms * num_atoms * electrons.element_size()))

    def kinetic(x: Tensor, r: Tensor, k: Tensor) -> tuple[Tensor]:
        return (kinetic_energy(partial(_of_electrons, log_psi, x, k.squeeze(-2)), r),)

    return in_parts(kinetic, limit, protons.unsqueeze(1), electrons, twists[:, None, None])[0]


def _of_electrons(log_psi: Callable[[Any, Any, Tensor], Any], protons: Tensor, twists: Tensor, electrons: Any) -> Any:
    return log_psi(protons, electrons, twists)
