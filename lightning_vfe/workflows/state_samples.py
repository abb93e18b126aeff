"""Samples of one state point: protons with their energies and weights, and their electrons."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lightning_vfe.physics.flow_gap import FlowGap, flow_gap
from lightning_vfe.physics.reweighting import BoltzmannWeights
from lightning_vfe.physics.state_point import StatePoint

MAX_NOISE = 0.25
"""In (kT)^2: above it, the noise of E_psi takes more than a fifth of the weights' effective samples."""


@dataclass(frozen=True)
class ElectronSamples:
    """Electrons of n configurations: samples of |psi_x(r)|^2, B for each of T twists.

    Attributes:
        twists: fractional, k = 2 pi twist / L; random ones differ between configurations.  # (n, T, 3)
        electrons: bohr, in any image; the first half has spin up.  # (n, T, B, N, 3)
        log_psi: ln psi_x(r), complex.  # (n, T, B)
        local_energy: E_loc of the whole cell in Ha, complex.  # (n, T, B)
        twist_weights: of the twist average, with the sum one.  # (T,)
    """

    twists: np.ndarray
    electrons: np.ndarray
    log_psi: np.ndarray
    local_energy: np.ndarray
    twist_weights: np.ndarray


@dataclass(frozen=True)
class StateSamples:
    """Samples of one state point, in Hartree atomic units of the whole cell.

    Attributes:
        point: density and temperature.
        protons: x, inside the cell.  # (n, N, 3)
        log_prob: ln p(x), normalised over ordered protons.  # (n,)
        energy: E_psi(x), averaged over the twists.  # (n,)
        energy_error: its standard error.  # (n,)
        energy_noise: its variance without bias, from the scatter of the electron walkers.  # (n,)
        energy_freedom: degrees of freedom of this variance.
        ml_energy: E_ML(x) of the base's potential at the same protons; None for the uniform base.  # (n,)
        weights: for averages over exp(-E_psi/kT), see `boltzmann_weights`.
        forces: Hellmann-Feynman forces, see `hellmann_feynman_forces`; None if not asked for.  # (n, N, 3)
        force_errors: their standard errors.
        ml_forces: -dE_ML/dx at the same protons.
        electrons: their electrons; None if not asked for.
    """

    point: StatePoint
    protons: np.ndarray
    log_prob: np.ndarray
    energy: np.ndarray
    energy_error: np.ndarray
    energy_noise: np.ndarray
    energy_freedom: int
    ml_energy: np.ndarray | None
    weights: BoltzmannWeights
    forces: np.ndarray | None = None
    force_errors: np.ndarray | None = None
    ml_forces: np.ndarray | None = None
    electrons: ElectronSamples | None = None

    @property
    def mean_energy_per_atom(self) -> tuple[float, float]:
        """Mean of E_psi / N over p(x) and its standard error, in Ha."""
        energies, num_atoms = self.energy, self.protons.shape[1]
        error = energies.std(ddof=1) / math.sqrt(len(energies)) if len(energies) > 1 else math.nan
        return float(energies.mean()) / num_atoms, float(error) / num_atoms

    @cached_property
    def flow_gap(self) -> FlowGap:
        """How far F of p(x) lies above the free energy of E_psi, averaged over the twists."""
        kT, num_atoms = self.point.kT, self.protons.shape[1]
        free = (self.energy + kT * self.log_prob) / num_atoms
        return flow_gap(free[None], self.energy_noise[None], self.energy_freedom + 1, kT, num_atoms)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the weights are not to be trusted; empty if they are."""
        if self.weights.noise > MAX_NOISE:
            wanted = math.ceil(self.weights.noise / MAX_NOISE)
            return (
                f"{self.point}: the noise of E_psi is {math.sqrt(self.weights.noise):.2g} kT and blurs the weights: "
                f"raise sample.num_sweeps by a factor of {wanted}",
            )
        return ()
