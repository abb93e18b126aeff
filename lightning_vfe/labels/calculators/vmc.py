"""Energies of a trained wavefunction by variational Monte Carlo, with their errors; no forces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from lightning_vfe.errors import SettingError
from lightning_vfe.labels.label import Configuration, Label
from lightning_vfe.models.wavefunction.wavefunction import GeminalWavefunction
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.strata import Strata
from lightning_vfe.physics.system import System
from lightning_vfe.physics.twists import twist_grid
from lightning_vfe.physics.units import HARTREE_PER_BOHR3_TO_GPA
from lightning_vfe.sampling.nested import NestedSampler
from lightning_vfe.sampling.proposals import Proposal
from lightning_vfe.state.electron_averages import ElectronAverages, ElectronMonteCarlo


class VMCLabeller:
    """E(x) = E_{r~|psi_x|^2} E_loc(x, r), averaged over twists, for many configurations as one batch of walkers.

    The electrons are in their ground state: both energies of a label are E. The error is the larger of that across
    walkers (within each twist) and that of the time series, as of all results of this package.

    Args:
        system: the particles that the wavefunction was trained for.
        rs: density in bohr that it was trained at; configurations of another cell have no label.
        wavefunction: psi_x(r).
        twists: a grid [n1, n2, n3] or a list of fractional vectors; of f and -f one is computed.
        num_electron_walkers: walkers of every configuration and twist, at least 2.
        equilibration_sweeps: sweeps that adapt the width and are discarded.
        num_sweeps: measured sweeps.
        num_electron_steps: moves of the electrons in a sweep.
        electron_proposal: "hamiltonian", "gaussian", "langevin" or a rule.
        chain_precision: of ln|psi|^2 in the moves, "float32" or "float64"; energies keep that of the parameters.
        batch_size: configurations at once.
        virial_pressure: store (2 K + V) / 3V too; it holds where psi is stationary under scaling only.
        seed: of the electrons' chains.
        device: where the walkers live.

    Raises:
        ValueError: a number is out of its range.
    """

    def __init__(
        self,
        system: System,
        rs: float,
        wavefunction: GeminalWavefunction,
        twists: Sequence[int] | Sequence[Sequence[float]] = (1, 1, 1),
        num_electron_walkers: int = 32,
        equilibration_sweeps: int = 20,
        num_sweeps: int = 100,
        num_electron_steps: int = 4,
        electron_proposal: str | Proposal = "hamiltonian",
        chain_precision: str | None = "float32",
        batch_size: int = 16,
        virial_pressure: bool = False,
        seed: int = 42,
        device: str = "cpu",
    ) -> None:
        for name, value, least in (
            ("num_electron_walkers", num_electron_walkers, 2),
            ("equilibration_sweeps", equilibration_sweeps, 1),
            ("num_sweeps", num_sweeps, 2),
            ("batch_size", batch_size, 1),
        ):
            if value < least:
                raise SettingError(name, value, f"must be at least {least}")
        self.system = system
        self.cell = PeriodicCell(system.num_atoms, rs)
        self.wavefunction = wavefunction.to(device).eval().requires_grad_(False)
        self.strata = Strata((StatePoint(rs),), twist_grid(twists, "time_reversal"))
        self.num_electron_walkers = num_electron_walkers
        self.equilibration_sweeps = equilibration_sweeps
        self.num_sweeps = num_sweeps
        self.batch_size = batch_size
        self.virial_pressure = virial_pressure
        self.seed = seed
        self.device = device
        self.chain_precision = chain_precision
        self.sampler = NestedSampler(system, electron_proposal=electron_proposal, num_electron_steps=num_electron_steps)

    def __call__(self, configurations: Sequence[Configuration]) -> Iterator[tuple[int, Label | str]]:
        """(index, label or message), batch after batch."""
        fitting = []
        for index, configuration in enumerate(configurations):
            if self._fits(configuration):
                fitting.append(index)
            else:
                yield index, f"the wavefunction belongs to N = {self.cell.num_atoms}, rs = {self.cell.rs:g}"
        for first in range(0, len(fitting), self.batch_size):
            batch = fitting[first : first + self.batch_size]
            positions = np.stack([configurations[index].positions for index in batch])
            labels = self._batch(torch.tensor(positions, dtype=torch.get_default_dtype(), device=self.device), first)
            yield from zip(batch, labels, strict=True)

    def _fits(self, configuration: Configuration) -> bool:
        same_length = abs(configuration.length - self.cell.length) < 1e-6 * self.cell.length
        return len(configuration.positions) == self.cell.num_atoms and same_length

    def _batch(self, protons: Tensor, first: int) -> list[Label | str]:
        """Labels of protons (C, N, 3); `first` tells the batches' random numbers apart."""
        electrons = ElectronMonteCarlo(
            self.system,
            self.strata,
            self.wavefunction,
            self.sampler,
            self.num_electron_walkers,
            self.equilibration_sweeps,
            self.num_sweeps,
            self.seed,
            chain_precision=self.chain_precision,
        )
        return [self._label(each) for each in electrons.averages(protons, stream=first)]

    def _label(self, found: ElectronAverages) -> Label | str:
        if found.energy is None:
            return "the local energy is not finite"
        pressure = found.virial / (3.0 * self.cell.volume) * HARTREE_PER_BOHR3_TO_GPA if self.virial_pressure else None
        return Label(found.energy.value, found.energy.value, pressure_gpa=pressure, energy_error=found.energy.error)
