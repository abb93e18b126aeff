"""Independent proton configurations of a trained run, with their energies and weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_vfe.errors import SettingError
from lightning_vfe.models.potential.potential import Potential
from lightning_vfe.physics.reweighting import boltzmann_weights
from lightning_vfe.physics.strata import Strata
from lightning_vfe.progress import Progress
from lightning_vfe.state.electron_averages import ElectronAverages, ElectronMonteCarlo, ElectronWalkers
from lightning_vfe.state.proton_chains import ProtonDraws, draw_protons, sampled_density
from lightning_vfe.state.variational_state import VariationalState
from lightning_vfe.workflows.samples import Samples
from lightning_vfe.workflows.state_samples import ElectronSamples, StateSamples


@dataclass(frozen=True)
class SampleSettings:
    """Settings of `lightning-vfe sample`.

    Attributes:
        num_samples: independent configurations of each state point.
        spacing: sweeps between two configurations of a chain; None derives it from the autocorrelation time.
        pilot_sweeps: sweeps that measure the autocorrelation time.
        num_electron_walkers: B of each configuration and twist.
        equilibration_sweeps: sweeps of the electrons that are discarded.
        num_sweeps: measured sweeps of the electrons.
        forces: compute forces, too.
        electrons: keep the electron walkers of the last sweep, too.
        batch_size: configurations at once.
        seed: of all random numbers.

    Raises:
        SettingError: a setting is out of its range.
    """

    num_samples: int = 100
    spacing: int | None = None
    pilot_sweeps: int = 200
    num_electron_walkers: int = 16
    equilibration_sweeps: int = 20
    num_sweeps: int = 40
    forces: bool = False
    electrons: bool = False
    batch_size: int = 16
    seed: int = 42

    def __post_init__(self) -> None:
        least = {"num_samples": 1, "spacing": 1, "pilot_sweeps": 4, "num_electron_walkers": 2}
        for name, smallest in (least | {"equilibration_sweeps": 1, "num_sweeps": 2, "batch_size": 1}).items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise SettingError(name, value, f"must be at least {smallest}")

    def description(self, state: VariationalState) -> dict[str, str]:
        """What the banner says of samples of a state.

        Raises:
            SettingError: the state has no p(x) that its chains sample.
        """
        sampled_density(state)
        spacing = f"after a pilot of {self.pilot_sweeps} sweeps"
        if self.spacing is not None:
            spacing = f"{self.spacing} sweeps apart"
        walkers = self.num_electron_walkers * len(state.strata.twists)
        return {
            "states": "; ".join(map(str, state.strata.points)),
            "samples": f"{self.num_samples} of each state, {spacing}",
            "electrons": f"{walkers} walkers of each sample, {self.equilibration_sweeps} + {self.num_sweeps} sweeps",
        }


def sample_state(
    state: VariationalState, settings: SampleSettings, provenance: dict[str, Any], progress: Progress | None = None
) -> Samples:
    """Independent configurations of p(x) with E_psi, E_ML, weights and forces.

    Args:
        state: networks and walkers, which stay.
        settings: see there.
        provenance: kept with the samples.
        progress: called with the part of the work, what is done and what there is.

    Raises:
        SettingError: the run has no p(x), or a setting cannot be used.
        FloatingPointError: a local energy is not finite.
    """
    given = settings.num_samples, settings.spacing, settings.pilot_sweeps, settings.seed
    draws = draw_protons(state, *given, progress=progress)
    found = tuple(
        _measure(state, settings, draws, number, progress or (lambda *_: None))
        for number in range(state.strata.num_states)
    )
    reasons = (*draws.reasons, *(reason for each in found for reason in each.reasons))
    return Samples(found, draws.spacing, draws.autocorrelation_time, reasons, provenance)


def _measure(
    state: VariationalState, settings: SampleSettings, draws: ProtonDraws, number: int, progress: Progress
) -> StateSamples:
    point, own = state.strata.points[number], draws.state == number
    protons, log_prob = draws.protons[own.to(draws.protons.device)], draws.log_prob[own.to(draws.log_prob.device)]
    electrons = ElectronMonteCarlo(
        state.system,
        Strata((point,), state.strata.twists),
        state.wavefunction,
        state.sampler,
        settings.num_electron_walkers,
        settings.equilibration_sweeps,
        settings.num_sweeps,
        settings.seed + number,
        settings.forces,
        settings.electrons,
    )
    averages: list[ElectronAverages] = []
    for first in range(0, len(protons), settings.batch_size):
        averages += electrons.averages(protons[first : first + settings.batch_size], stream=first)
        progress(f"electrons, {point}", len(averages), len(protons))
    estimates = [each.energy for each in averages if each.energy is not None]
    if len(estimates) < len(averages):
        raise FloatingPointError(f"E_psi of {len(averages) - len(estimates)} samples is not finite")
    energy, error = (np.array([getattr(each, name) for each in estimates]) for name in ("value", "error"))
    ml_energy, ml_forces = _of_potential(state, protons, settings.forces)
    log_p = log_prob.double().cpu().numpy()
    return StateSamples(
        point,
        protons.double().cpu().numpy(),
        log_p,
        energy,
        error,
        np.array([each.noise for each in averages]),
        len(state.strata.twists) * (settings.num_electron_walkers - 1),
        ml_energy,
        boltzmann_weights(energy, error, log_p, point.kT),
        _stacked([each.forces for each in averages]),
        _stacked([each.force_errors for each in averages]),
        ml_forces,
        _electrons([each.walkers for each in averages if each.walkers is not None], state.strata.twists.weights),
    )


def _of_potential(
    state: VariationalState, protons: Tensor, with_forces: bool
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """E_ML(x) and, for potentials of this package, its forces."""
    assert state.proton_density is not None
    base = state.proton_density.base
    potential, cell = getattr(base, "potential", None), getattr(base, "cell", None)
    if potential is None or cell is None:
        return None, None
    with torch.no_grad():
        energy = potential.energy(protons, cell).double().cpu().numpy()
    if not with_forces or not isinstance(potential, Potential):
        return energy, None
    return energy, potential.forces(protons, cell).double().cpu().numpy()


def _electrons(walkers: Sequence[ElectronWalkers], twist_weights: Tensor) -> ElectronSamples | None:
    if not walkers:
        return None
    twists, electrons, log_psi, local_energy = (
        torch.stack([getattr(each, name) for each in walkers]).cpu().numpy()
        for name in ("twists", "electrons", "log_psi", "local_energy")
    )
    return ElectronSamples(twists, electrons, log_psi, local_energy, twist_weights.cpu().numpy())


def _stacked(arrays: Sequence[Tensor | None]) -> np.ndarray | None:
    found = [each.cpu().numpy() for each in arrays if each is not None]
    return np.stack(found) if found else None
