"""Classical protons in a potential: energy, pressure and g(r) from chains of its Boltzmann distribution."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_vfe.errors import SettingError
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.free_energy import momentum_free_energy
from lightning_vfe.physics.observables import RadialDistribution, RadialDistributions
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.statistics import Estimate, estimate
from lightning_vfe.physics.system import System
from lightning_vfe.physics.units import HARTREE_PER_BOHR3_TO_GPA
from lightning_vfe.sampling.boltzmann import STRIDE, BoltzmannChains
from lightning_vfe.sampling.random import WalkerRandom


@dataclass(frozen=True)
class ClassicalSamples:
    """What the chains saw; C chains.

    Attributes:
        energy: E(z) of the whole cell in Ha.  # (steps, C)
        pressure: -dE/dV of the potential at fixed scaled positions in Ha/bohr^3, without kT N/V.  # (steps, C)
        radial: g(r) of the protons.
    """

    energy: Tensor
    pressure: Tensor
    radial: dict[str, RadialDistribution]


def sample_potential(
    energy: Callable[[Tensor], Tensor],
    pressure: Callable[[Tensor], Tensor],
    cell: PeriodicCell,
    kT: float,
    start: Tensor,
    width: float,
    num_samples: int,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> ClassicalSamples:
    """Sample exp(-E/kT) by Langevin moves of fixed width.

    Args:
        energy: E in Ha of the whole cell, (C, N, 3) -> (C,), differentiable.
        pressure: of the potential in Ha/bohr^3, (C, N, 3) -> (C,).
        cell: the periodic cell.
        kT: in Ha.
        start: equilibrated configurations in bohr.  # (C, N, 3)
        width: of the moves in bohr.
        num_samples: samples of every chain, STRIDE moves apart.
        seed: of the random numbers.
        progress: called with the number of samples made.

    Raises:
        ValueError: num_samples is not positive.
    """
    if num_samples < 1:
        raise SettingError("num_samples", num_samples, "must be at least 1", "200 give errors worth having")
    random = WalkerRandom(range(start.shape[0]), seed, start.device)
    chains = BoltzmannChains(energy, cell, kT, start, width, random)
    radial, energies, pressures = RadialDistributions(cell), [], []
    for number, sample in enumerate(chains.samples(num_samples, STRIDE), start=1):
        energies.append(sample.energy)
        pressures.append(pressure(sample.positions))
        radial.update(sample.positions)
        if progress is not None:
            progress(number)
    return ClassicalSamples(torch.stack(energies), torch.stack(pressures), radial.result())


def classical_estimates(
    system: System, point: StatePoint, samples: ClassicalSamples, log_z: float, log_z_error: float
) -> dict[str, Estimate]:
    r"""F, E, S, P of classical protons in a potential, by the names of summary.json, per atom.

        F = -kT ln Z + kT [ln N! + 3N ln lambda_dB],   E = <E(z)> + 3/2 N kT,   S = (E - F)/T,
        P = <P(z)> + N kT/V.

    Args:
        system: number of atoms and nuclear mass.
        point: density and temperature.
        samples: of the potential.
        log_z: ln of the integral of exp(-E/kT) over the cell, and its error.
        log_z_error: its error.
    """
    count, kT, volume = system.num_atoms, point.kT, point.cell(system.num_atoms).volume
    momenta = float(momentum_free_energy(system, kT))
    energy = estimate(samples.energy / count + 1.5 * kT)
    pressure = estimate((samples.pressure + count * kT / volume) * HARTREE_PER_BOHR3_TO_GPA)
    # Numbers of one integration, not of a time series: their other diagnostics are those of the energy.
    free_energy = _with(energy, (-kT * log_z + momenta) / count, kT * log_z_error / count)
    entropy = (energy.value - free_energy.value) / kT
    return {
        "free_energy_per_atom": free_energy,
        "energy_per_atom": energy,
        "entropy_per_atom": _with(energy, entropy, math.hypot(energy.error, free_energy.error) / kT),
        "pressure_gpa": pressure,
    }


def _with(found: Estimate, value: float, error: float) -> Estimate:
    return Estimate(value, error, found.autocorrelation_time, found.effective_sample_size, found.r_hat)
