"""What an integration of ln Z is asked for, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from lightning_vfe.sampling.proposals import make_proposal


@dataclass(frozen=True)
class IntegrationSettings:
    """Settings of `integrate`.

    Attributes:
        num_chains: C, chains of each window; the error bar wants 8 or more independent ones.
        num_steps: Metropolis steps of a sweep, after which energies are recorded and neighbours swap.
        num_sweeps: sweeps of the first estimate; more follow while the error or R-hat is too large.
        max_sweeps: sweeps at which sampling ends in any case.
        pilot_sweeps: sweeps of each of the pilot's rounds, and of the equilibration.
        target_error_per_atom: wanted standard error of ln Z / N, that is, of F / (N kT).
        spacing: thermodynamic length between neighbouring windows.
        min_overlap: windows are added between neighbours whose overlap is below.
        max_windows_per_stage: most windows that the pilot may place in a stage.
        proposal: "langevin" (MALA) or "gaussian".
        num_bootstraps: resamplings of the bootstrap error.
        seed: of all random numbers.

    Raises:
        ValueError: a setting is out of its range.
    """

    num_chains: int = 16
    num_steps: int = 5
    num_sweeps: int = 300
    max_sweeps: int = 3000
    pilot_sweeps: int = 50
    target_error_per_atom: float = 0.004
    spacing: float = 1.0
    min_overlap: float = 0.03
    max_windows_per_stage: int = 60
    proposal: str = "langevin"
    num_bootstraps: int = 50
    seed: int = 42

    def __post_init__(self) -> None:
        least = {"num_chains": 2, "num_steps": 1, "num_sweeps": 20, "pilot_sweeps": 6, "num_bootstraps": 10}
        for name, smallest in {**least, "max_sweeps": self.num_sweeps, "max_windows_per_stage": 1}.items():
            if getattr(self, name) < smallest:
                raise ValueError(f"integrate.{name} = {getattr(self, name)} must be at least {smallest}")
        for name, example in (("target_error_per_atom", 0.004), ("spacing", 1.0)):
            if not getattr(self, name) > 0:
                raise ValueError(f"integrate.{name} = {getattr(self, name)} must be positive, for example {example}")
        if not 0.01 <= self.min_overlap <= 0.2:
            raise ValueError(f"integrate.min_overlap = {self.min_overlap} must be from 0.01 to 0.2; 0.03 is usual")
        if self.seed < 0:
            raise ValueError(f"seed = {self.seed} must not be negative; give a whole number such as 42")
        make_proposal(self.proposal, "integrate.proposal")


@dataclass(frozen=True)
class WindowReport:
    """One window of the path.

    Attributes:
        point: s; its whole part is the stage, its fraction the share of the stage's second potential.
        log_z: ln Z of this window, with the ideal gas's 3N ln L.
        num_samples: independent samples used.
        inefficiency: sweeps from one independent sample to the next.
        r_hat: split R-hat of the energy differences over the chains.
        acceptance: accepted fraction of the moves.
        width: of the moves, in bohr.
        overlap_with_next: the smaller of the two entries of the overlap matrix; None for the last window.
        swaps_with_next: accepted fraction of the swaps; None for the last window.
    """

    point: float
    log_z: float
    num_samples: int
    inefficiency: float
    r_hat: float
    acceptance: float
    width: float
    overlap_with_next: float | None
    swaps_with_next: float | None


@dataclass(frozen=True)
class Integration:
    """ln Z and how it came about.

    Attributes:
        log_z: ln of the integral of exp(-E/kT) over the cell, lengths in bohr, without 1/N!.
        log_z_error: its standard error, the larger of the next two.
        bootstrap_error: from resampling each window's uncorrelated samples.
        ladder_error: from the spread over the independent ladders of chains.
        windows: along the path, first the ideal gas.  # K
        overlap: overlap matrix of the windows.  # (K, K)
        converged: whether the result can be trusted.
        reasons: why not.
        positions: last configurations of the target's chains in bohr, equilibrated starts for others; None for the
            ideal gas.  # (C, N, 3)
    """

    log_z: float
    log_z_error: float
    bootstrap_error: float
    ladder_error: float
    windows: tuple[WindowReport, ...]
    overlap: np.ndarray
    converged: bool
    reasons: tuple[str, ...]
    positions: Tensor | None
