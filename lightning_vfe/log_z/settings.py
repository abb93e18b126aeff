"""What an integration of ln Z is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_vfe.errors import SettingError
from lightning_vfe.sampling.proposals import make_proposal


@dataclass(frozen=True)
class LogZSettings:
    """Settings of `lightning-vfe log-z`.

    Attributes:
        num_chains: C, chains of each window; the error bar needs 8 or more independent ones.
        num_steps: Metropolis steps of a sweep, after which energies are recorded and neighbours swap.
        num_sweeps: sweeps of the first estimate; more follow while the error or R-hat is too large.
        max_sweeps: sweeps at which sampling ends in any case.
        pilot_sweeps: sweeps of each of the pilot's rounds, and of the equilibration.
        target_error_per_atom: target standard error of ln Z / N, that is, of F / (N kT).
        spacing: thermodynamic length between neighbouring windows.
        min_overlap: windows are added between neighbours whose overlap int p_1 p_2 / (p_1 + p_2) du is below; states,
            too, where there are several.
        max_windows_per_stage: most windows that the pilot may place in a stage.
        proposal: "langevin" (MALA) or "gaussian".
        num_bootstraps: resamplings of the bootstrap error.
        seed: of all random numbers.

    Raises:
        ValueError: a setting is out of its range.
    """

    num_chains: int = 16
    num_steps: int = 5
    num_sweeps: int = 150
    max_sweeps: int = 3000
    pilot_sweeps: int = 30
    target_error_per_atom: float = 0.004
    spacing: float = 1.0
    min_overlap: float = 0.03
    max_windows_per_stage: int = 60
    proposal: str = "langevin"
    num_bootstraps: int = 50
    seed: int = 42

    def __post_init__(self) -> None:
        least = {"num_chains": 2, "num_steps": 1, "num_sweeps": 20, "pilot_sweeps": 6, "num_bootstraps": 10}
        for name, smallest in {**least, "max_windows_per_stage": 1}.items():
            if getattr(self, name) < smallest:
                raise SettingError(name, getattr(self, name), f"must be at least {smallest}")
        if self.max_sweeps < self.num_sweeps:
            raise SettingError(
                "max_sweeps",
                self.max_sweeps,
                f"must be at least log_z.num_sweeps = {self.num_sweeps}",
                "raise it, or lower log_z.num_sweeps as well",
            )
        for name, example in (("target_error_per_atom", 0.004), ("spacing", 1.0)):
            if not getattr(self, name) > 0:
                raise SettingError(name, getattr(self, name), f"must be positive, for example {example}")
        if not 0.01 <= self.min_overlap <= 0.2:
            raise SettingError(
                "min_overlap",
                self.min_overlap,
                "must be from 0.01 to 0.2: equal distributions overlap by 0.5, Gaussians two standard deviations apart "
                "by 0.22",
                "0.03 is usual",
            )
        if self.seed < 0:
            raise SettingError("seed", self.seed, "must not be negative", "give a whole number such as 42")
        make_proposal(self.proposal, "proposal")
