"""Any ASE calculator as E_ML of the base. Here ln Z is an average over uniform protons; `lightning-vfe log-z` finds it
for many protons.
"""

import math

import torch

import lightning_vfe as lv

MORSE = {"epsilon": 0.3, "r0": 1.1, "rho0": 3.0}  # eV and angstrom


def find_log_z(potential, point, num_samples):
    """ln Z = 3N ln L + ln <exp(-E/kT)> over uniform protons, and its standard error."""
    cell = point.cell(2)
    weights = torch.exp(-potential.energy(cell.length * torch.rand(num_samples, 2, 3), cell) / point.kT)
    error = float(weights.std() / weights.mean()) / math.sqrt(num_samples)
    return 6 * math.log(cell.length) + math.log(weights.mean()), error


def build(num_samples=500):
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(1)
    system, point, strata = lv.System(2), lv.StatePoint(2.0, 6000.0), lv.Strata.of(2.0, 6000.0)
    potential = lv.ASEPotential("ase.calculators.morse.MorsePotential", MORSE)
    base = lv.BoltzmannBase(point.cell(2), potential, 6000.0, *find_log_z(potential, point, num_samples))
    density = lv.ProtonDensity(base, lv.EquivariantFlow(system, point, num_channels=2))
    psi = lv.GeminalWavefunction(system, point, num_layers=1, single_width=8, pair_width=4)
    sampler = lv.NestedSampler(system, num_proton_steps=5, num_electron_steps=10, proton_sampling="direct")
    return lv.VariationalState(system, strata, psi, density, sampler, 8, 4, equilibration_sweeps=10)


if __name__ == "__main__":
    for name, value in build().energies().terms.items():
        print(name, value.mean())
