"""F = E - TS from its terms, for every walker, per atom: the numbers that are logged, summed up and reported."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.units import HARTREE_PER_BOHR3_TO_GPA, KELVIN_TO_HARTREE, PROTON_MASS


def momentum_free_energy(num_atoms: int, temperature_kelvin: float) -> float:
    r"""kT [ln N! + 3N ln lambda_dB], Ha for the whole cell: momenta and indistinguishability of classical protons.

    lambda_dB = sqrt(2 pi / (m_p kT)) in bohr, m_p = 1836.15.
    """
    kT = KELVIN_TO_HARTREE * temperature_kelvin
    wavelength = math.sqrt(2.0 * math.pi / (PROTON_MASS * kT))
    return kT * (math.lgamma(num_atoms + 1) + 3 * num_atoms * math.log(wavelength))


def free_energy_terms(
    cell: PeriodicCell,
    temperature_kelvin: float,
    electron_kinetic: Tensor,
    v_pp: Tensor,
    v_pe: Tensor,
    v_ee: Tensor,
    log_prob: Tensor | None = None,
    log_abs_det_dzdx: Tensor | None = None,
    base_energy: Tensor | None = None,
    base_free_energy: float = 0.0,
) -> dict[str, Tensor]:
    r"""All reported quantities of each walker, per atom, in Ha (entropy in k_B, pressure in GPa).

    With K = K_e + 3/2 N kT and V = V_pp + V_pe + V_ee (terms of the whole cell, Ha, shapes all (...)):

        energy        E = K + V
        free_energy   F = K_e + V + kT ln p(x) + kT [ln N! + 3N ln lambda_dB]
        entropy       S/k_B = (E - F)/kT
        pressure      P = (2K + V) / 3L^3   (virial; holds where psi is stationary under scaling)
        base_free_energy  -kT ln Z_ML (a number), log_det  ln|det dz/dx|, base_energy  E_ML(z)

    F averaged over x ~ p is the variational free energy (Xie et al., PRL 131, 126501 (2023), eq. 2). Without
    `log_prob` the protons are fixed: no proton kinetic energy, F = E and S = 0.
    """
    num_atoms = cell.num_atoms
    potential = v_pp + v_pe + v_ee
    kT = KELVIN_TO_HARTREE * temperature_kelvin
    proton_kinetic = 0.0 if log_prob is None else 1.5 * num_atoms * kT
    kinetic = electron_kinetic + proton_kinetic
    energy = kinetic + potential
    if log_prob is None:
        free_energy, entropy = energy, torch.zeros_like(energy)
    else:
        momenta = momentum_free_energy(num_atoms, temperature_kelvin)
        free_energy = electron_kinetic + potential + kT * log_prob + momenta
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
    if log_prob is not None:
        terms["base_free_energy_per_atom"] = torch.full_like(energy, base_free_energy)
        terms["base_energy_per_atom"] = torch.zeros_like(energy) if base_energy is None else base_energy
        terms["log_det_per_atom"] = torch.zeros_like(energy) if log_abs_det_dzdx is None else log_abs_det_dzdx
    terms = {name: value / num_atoms for name, value in terms.items()}
    terms["pressure_gpa"] = (2.0 * kinetic + potential) / (3.0 * cell.volume) * HARTREE_PER_BOHR3_TO_GPA
    return terms
