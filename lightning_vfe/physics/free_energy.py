"""F = E - TS from its terms, for every walker, per atom: the numbers that are logged, summed up and reported."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_vfe.physics.state_point import WalkerStates
from lightning_vfe.physics.system import System
from lightning_vfe.physics.units import HARTREE_PER_BOHR3_TO_GPA

OF_JELLIUM = ("free_energy_per_atom", "energy_per_atom", "kinetic_energy_per_atom", "v_ee_per_atom")
"""Terms that electrons without protons have; per electron."""


def momentum_free_energy(system: System, kT: Tensor | float) -> Tensor:
    r"""kT [ln N! + 3N ln lambda_dB], Ha for the whole cell: momenta and indistinguishability of classical nuclei.

    lambda_dB = sqrt(2 pi / (m kT)) in bohr, m the nuclear mass in electron masses.

    Args:
        system: N and m.
        kT: in Ha.  # (...)
    """
    kT = torch.as_tensor(kT)
    wavelength = torch.sqrt(2.0 * math.pi / (system.nuclear_mass * kT))
    return kT * (math.lgamma(system.num_atoms + 1) + 3 * system.num_atoms * torch.log(wavelength))


def free_energy_terms(
    system: System,
    states: WalkerStates,
    electron_kinetic: Tensor,
    v_pp: Tensor,
    v_pe: Tensor,
    v_ee: Tensor,
    log_prob: Tensor | None = None,
    log_abs_det_dzdx: Tensor | None = None,
    base_energy: Tensor | None = None,
    base_free_energy: Tensor | None = None,
) -> dict[str, Tensor]:
    r"""All reported quantities of each walker, per atom, in Ha (entropy in k_B, pressure in GPa).

    With K = K_e + 3/2 N kT and V = V_pp + V_pe + V_ee (terms of the whole cell, Ha, shapes all (...)):

        energy        E = K + V
        free_energy   F = K_e + V + kT ln p(x) + kT [ln N! + 3N ln lambda_dB]
        entropy       S/k_B = (E - F)/kT
        pressure      P = (2K + V) / 3L^3   (virial; holds where psi is stationary under scaling)
        base_free_energy  -kT ln Z_ML, log_det  ln|det dz/dx|, base_energy  E_ML(z)

    F averaged over x ~ p is the variational free energy (Xie et al., PRL 131, 126501 (2023), eq. 2). Without
    `log_prob` the protons are fixed: no proton kinetic energy, F = E and S = 0. Jellium has no protons: F = E, and the
    entropy, v_pp, v_pe and the electrons' part of the kinetic energy are left out.

    Args:
        system: number of atoms and nuclear mass.
        states: rs and kT of every walker.  # (...)
        electron_kinetic: K_e of the whole cell, Ha.  # (...)
        v_pp: of the whole cell, Ha.  # (...)
        v_pe: of the whole cell, Ha.  # (...)
        v_ee: of the whole cell, Ha.  # (...)
        log_prob: ln p(x) in bohr^(-3N).  # (...)
        log_abs_det_dzdx: ln|det dz/dx| of the flow.  # (...)
        base_energy: E_ML(z), Ha.  # (...)
        base_free_energy: -kT ln Z_ML, Ha.  # (...)
    """
    num_atoms, kT = system.num_atoms, states.kT
    potential = v_pp + v_pe + v_ee
    proton_kinetic = 0.0 if log_prob is None else 1.5 * num_atoms * kT
    kinetic = electron_kinetic + proton_kinetic
    energy = kinetic + potential
    if log_prob is None:
        free_energy, entropy = energy, torch.zeros_like(energy)
    else:
        free_energy = electron_kinetic + potential + kT * log_prob + momentum_free_energy(system, kT)
        entropy = (energy - free_energy) / kT
    terms = {
        "free_energy_per_atom": free_energy,
        "energy_per_atom": energy,
        "kinetic_energy_per_atom": kinetic,
        "electron_kinetic_energy_per_atom": electron_kinetic,
        "v_pp_per_atom": v_pp,
        "v_pe_per_atom": v_pe,
        "v_ee_per_atom": v_ee,
        "entropy_per_atom": entropy,
    }
    if not system.num_protons:
        terms = {name: value for name, value in terms.items() if name in OF_JELLIUM}
    if log_prob is not None:
        zero = torch.zeros_like(energy)
        terms["base_free_energy_per_atom"] = zero if base_free_energy is None else base_free_energy.expand_as(energy)
        terms["base_energy_per_atom"] = zero if base_energy is None else base_energy
        terms["log_det_per_atom"] = zero if log_abs_det_dzdx is None else log_abs_det_dzdx
    terms = {name: value / num_atoms for name, value in terms.items()}
    volume = 4.0 * math.pi * num_atoms / 3.0 * states.rs**3
    terms["pressure_gpa"] = (2.0 * kinetic + potential) / (3.0 * volume) * HARTREE_PER_BOHR3_TO_GPA
    return terms
