"""What `test` finds at one state point."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lightning_vfe.analysis.training_verdict import STEEPEST, Measured, Virial
from lightning_vfe.physics.finite_size import Correction
from lightning_vfe.physics.momentum_distribution import MomentumDistribution
from lightning_vfe.physics.observables import RadialDistribution
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.static_structure import StructureFactor
from lightning_vfe.physics.statistics import Estimate
from lightning_vfe.training.variational.bonds import Bonds
from lightning_vfe.training.variational.bracket import Gaps
from lightning_vfe.training.variational.metrics import CORRELATED
from lightning_vfe.training.variational.sampling_verdict import state_reasons

NEEDS_INVERTIBLE_MAP = ("free_energy_per_atom", "entropy_per_atom")


@dataclass
class StateResult:
    """What `test` found at one state point.

    Attributes:
        point: density and temperature.
        estimates: every term with its error.
        diagnostics: of these walkers and estimators.
        radial: g(r) of all kinds of pairs.
        steps_key: setting of the number of measured steps, for advice.
        is_direct: whether protons are found from base protons. Then the density that is sampled is normalised even
            where the map folds (see metrics.of_reached_protons).
        is_ceimc: whether the protons are those of exp(-E/kT), which has no known norm, in place of p(x).
        published: rows of analysis/published.py, the published values nearest to this state.
        budget: what the errors of F, E, S and P consist of.
        has_equilibrated: whether at most half of the steps had to be left out.
        gaps: how far F lies above the exact one; None where nobody measured it.
        structure: S(k) of all kinds.
        momentum: n(k) of the electrons; None where it was not measured.
        finite_size: two-body corrections, which stand beside the terms and are in none of them.
        correlations: matrix of the correlations of the terms metrics.CORRELATED; empty where nobody measured them.
        virial_excess: virial pressure minus -dE/dV at fixed parameters, in GPa; None where it is not known.
        bonds: the molecular fraction of the chains; None where there are no molecules.
        reasons: why the numbers are not to be trusted; empty if they are.
    """

    point: StatePoint
    estimates: dict[str, Estimate]
    diagnostics: dict[str, float]
    radial: dict[str, RadialDistribution]
    steps_key: str = "datamodule.test_steps"
    is_direct: bool = False
    is_ceimc: bool = False
    published: list[dict[str, Any]] = field(default_factory=list)
    budget: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    has_equilibrated: bool = True
    gaps: Gaps | None = None
    structure: dict[str, StructureFactor] = field(default_factory=dict)
    momentum: MomentumDistribution | None = None
    finite_size: dict[str, Correction] = field(default_factory=dict)
    correlations: list[list[float]] = field(default_factory=list)
    virial_excess: Estimate | None = None
    bonds: Bonds | None = None
    reasons: list[str] = field(init=False)

    def __post_init__(self) -> None:
        energy, free_energy = self.estimates["energy_per_atom"], self.estimates["free_energy_per_atom"]
        self.diagnostics |= {
            "r_hat": max(energy.r_hat, free_energy.r_hat),
            "autocorrelation_time": max(energy.autocorrelation_time, free_energy.autocorrelation_time),
            "effective_sample_size": min(energy.effective_sample_size, free_energy.effective_sample_size),
        }
        self.diagnostics |= self.bonds.diagnostics() if self.bonds else {}
        folds = self.diagnostics["negative_determinants"] if self._is_refused else 0.0
        self.reasons = self.bonds.reasons(self.steps_key, self.is_direct) if self.bonds else []
        self.reasons += state_reasons(self.diagnostics, self.has_equilibrated, folds, self.steps_key)

    @property
    def _is_refused(self) -> bool:
        return not self.is_direct and not self.is_ceimc and self.diagnostics.get("negative_determinants", 0.0) > 0.0

    @property
    def _unknown(self) -> tuple[str, ...]:
        """Terms that are refused, or that the chains do not give."""
        return NEEDS_INVERTIBLE_MAP if self._is_refused or self.is_ceimc else ()

    def terms(self) -> dict[str, Any]:
        """{"value":, "error":} of each term; F and S are null where they are refused or not known.

        The finite-size corrections follow, with their unit and method.
        """
        content: dict[str, Any] = {}
        for name, found in self.estimates.items():
            value, error = (math.nan, math.nan) if name in self._unknown else (found.value, found.error)
            content[name] = {"value": plain(value), "error": plain(error)}
        for name, correction in self.finite_size.items():
            content[name] = asdict(correction) | {"error": plain(correction.error)}
        return content

    @property
    def for_verdict(self) -> Measured:
        """What the verdict on the training asks for."""
        virial = None
        if self.virial_excess is not None:
            virial = Virial(*self.virial_excess[:2], self.estimates["pressure_gpa"].error)
        line = self.gaps.line if self.gaps is not None else None
        steepness = line.slope + line.error if line is not None and line.error < STEEPEST else None
        return Measured(self.estimates["free_energy_per_atom"].error, virial, steepness)

    def bracket(self) -> dict[str, Any]:
        """{"bracket": ...}, the exact F from above and below; empty where nobody measured it."""
        if self.gaps is None:
            return {}
        upper = None if self._is_refused else self.estimates["free_energy_per_atom"]
        return {"bracket": self.gaps.as_dict(upper)}

    def by_start(self) -> dict[str, Any]:
        """{"molecular_fraction_by_start": ...}; empty where starts are not mixed."""
        return self.bonds.as_dict() if self.bonds else {}

    def error_budget(self) -> dict[str, Any]:
        """The entry `error_budget`: the parts of each error; null where F and S are refused."""
        return {
            "error_budget": {
                name: {cause: None if name in self._unknown else plain(part) for cause, part in parts.items()}
                for name, parts in self.budget.items()
            }
        }

    def correlation(self) -> dict[str, Any]:
        """The entry `correlations`: how the statistical errors of F, E and P are correlated; not of fixed protons."""
        if not self.correlations or not self.point.temperature_kelvin:
            return {}
        return {"correlations": {"terms": list(CORRELATED), "matrix": self.correlations}}

    def numbers(self) -> dict[str, Any]:
        """All of these, in the order of summary.json."""
        return self.terms() | self.by_start() | self.bracket() | self.error_budget() | self.correlation()


def plain(value: float) -> float | None:
    """JSON knows no nan."""
    return float(value) if math.isfinite(value) else None
