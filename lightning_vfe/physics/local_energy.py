"""E_loc(x, r): the local energy of the electrons and protons, term by term."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_vfe.physics.chunking import map_chunks, max_chunk_elements
from lightning_vfe.physics.ewald import CoulombEnergies, Ewald
from lightning_vfe.physics.kinetic import kinetic_energy, kinetic_energy_nested
from lightning_vfe.physics.state_point import WalkerStates

TANGENT_BYTES = 32
"""Bytes that the derivatives of one chunk of walkers may take for each element of `max_chunk_elements`; 16 MiB on a
CPU. They are about four tensors of 3N N numbers for each of 32 features."""


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


LogPsi = Callable[[Any, Any, WalkerStates], Any]
"""(protons (W, 1, N, 3), electrons (W, B, N, 3), states (W, 1)) -> complex ln psi (W, B)."""


@torch.no_grad()
def local_energy(
    ewald: Ewald, log_psi: LogPsi, protons: Tensor, electrons: Tensor, states: WalkerStates
) -> LocalEnergy:
    r"""E_loc = -1/2 sum_i [lap_i ln psi + (grad_i ln psi)^2] + V_ee + V_pe + V_pp with full Ewald energies.

    Args:
        ewald: Coulomb energies of the cell in units of rs (`System.cell`).
        log_psi: see LogPsi.
        protons: positions in bohr. # (W, N, 3)
        electrons: positions in bohr. # (W, B, N, 3)
        states: state point and twist of every walker. # (W,)
    """
    kinetic = kinetic_energies(log_psi, protons, electrons, states)
    coulomb = coulomb_energies(ewald, protons.unsqueeze(1), electrons, states.rs.unsqueeze(1))
    return LocalEnergy(kinetic, coulomb.v_pp.expand(kinetic.shape), coulomb.v_pe, coulomb.v_ee)


def coulomb_energies(ewald: Ewald, protons: Tensor, electrons: Tensor, rs: Tensor) -> CoulombEnergies:
    """Coulomb energies at densities that differ from walker to walker: V(x) = V(x / rs) / rs, in Ha.

    Args:
        ewald: of the cell in units of rs.
        protons: in bohr; of jellium none, (..., 0, 3), and v_pp = v_pe = 0. # (..., N, 3)
        electrons: in bohr. # (..., N, 3)
        rs: in bohr; leading dimensions broadcast. # (...)
    """
    if protons.shape[-2] == 0:
        v_ee = ewald.proton_energy(electrons, unit=rs) / rs
        return CoulombEnergies(torch.zeros_like(v_ee), torch.zeros_like(v_ee), v_ee)
    return CoulombEnergies(*(energy / rs for energy in ewald.energies(protons, electrons, unit=rs)))


def takes_nested_route(log_psi: LogPsi) -> bool:
    """Whether the kinetic energy comes from nested differentiation: right for any module, and several times slower.

    It does for a module that does not declare `carries_derivatives = True` (its operations have forward rules).
    """
    return isinstance(log_psi, nn.Module) and not getattr(log_psi, "carries_derivatives", False)


@torch.no_grad()
def kinetic_energies(log_psi: LogPsi, protons: Tensor, electrons: Tensor, states: WalkerStates) -> Tensor:
    """The kinetic term of local_energy alone, complex, Ha.  # (W, B)

    By derivatives carried forward, or by the nested route, see `takes_nested_route`.

    A bounded number of configurations at a time: large tensors would not only take memory, but leave the caches.
    """
    of_electrons = kinetic_energy_nested if takes_nested_route(log_psi) else kinetic_energy
    num_electrons = electrons.shape[-2]
    available = TANGENT_BYTES * max_chunk_elements(electrons)
    limit = max(1, available // (4 * 32 * 3 * num_electrons * num_electrons * electrons.element_size()))

    def kinetic(x: Tensor, r: Tensor, *parts: Tensor) -> tuple[Tensor]:
        rs, kT, twist = (part.squeeze(-2) for part in parts)
        point = WalkerStates(rs.squeeze(-1), kT.squeeze(-1), twist)
        return (of_electrons(lambda positions: log_psi(x, positions, point), r),)

    parts = states.rs[:, None, None, None], states.kT[:, None, None, None], states.twist[:, None, None]
    return map_chunks(kinetic, limit, protons.unsqueeze(1), electrons, *parts)[0]
