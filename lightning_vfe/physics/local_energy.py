"""E_loc(x, r): the local energy of the electrons and protons, term by term."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_vfe.physics.ewald import Ewald
from lightning_vfe.physics.kinetic import kinetic_energy

TANGENT_BYTES = 2**28
"""Memory that the carried derivatives of one chunk of walkers may take, about (several tensors of 3N N N numbers)."""


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
    """The kinetic term of local_energy alone, complex, Ha, a bounded number of proton walkers at a time.  # (W, B)"""
    protons, twists = protons.unsqueeze(1), twists.unsqueeze(1)
    num_atoms = electrons.shape[-2]
    bytes_per_walker = 8 * 3 * num_atoms * num_atoms * max(num_atoms, 32) * electrons.shape[1]
    chunk = max(1, TANGENT_BYTES // (4 * bytes_per_walker))
    parts = zip(protons.split(chunk), electrons.split(chunk), twists.split(chunk), strict=True)
    return torch.cat([kinetic_energy(partial(_of_electrons, log_psi, x, k), r) for x, r, k in parts])


def _of_electrons(log_psi: Callable[[Any, Any, Tensor], Any], protons: Tensor, twists: Tensor, electrons: Any) -> Any:
    return log_psi(protons, electrons, twists)
