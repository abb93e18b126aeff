"""The result of `test`: values with errors at each state point, diagnostics, and whether to trust them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightning_vfe.analysis.states import State
from lightning_vfe.analysis.terms import TERMS
from lightning_vfe.analysis.training_verdict import Virial, judge_training
from lightning_vfe.physics.finite_size import Correction
from lightning_vfe.physics.momentum_distribution import MomentumDistribution
from lightning_vfe.physics.observables import RadialDistribution
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.static_structure import StructureFactor
from lightning_vfe.physics.statistics import Estimate
from lightning_vfe.training.variational.bonds import Bonds
from lightning_vfe.training.variational.bracket import Gaps
from lightning_vfe.training.variational.diagnostics import (
    MAX_NOISE,
    MAX_NOISE_PER_FREEDOM,
    MAX_R_HAT,
    MAX_UNREACHED,
    MIN_EFFECTIVE_SAMPLES,
    electron_drift_limit,
)
from lightning_vfe.training.variational.metrics import CORRELATED
from lightning_vfe.training.variational.summary_files import (
    write_momentum_distribution,
    write_pair_correlation,
    write_structure_factor,
    write_summary,
)

NEEDS_INVERTIBLE_MAP = ("free_energy_per_atom", "entropy_per_atom")


@dataclass(frozen=True)
class MeasurementInfo:
    """How a result was measured.

    Attributes:
        seed: of the random numbers; where it is that of the training, the chains of the checkpoint continue.
        training_seed: of the training.
        steps: sweeps that were measured, with those that are left out.
        ended_by: test_steps or validation_steps where their number was given; else target_error, max_test_steps or
            max_time, whichever came first.
        target_error: by term, the error that was to be reached; empty where none was.
    """

    seed: int
    training_seed: int
    steps: int
    ended_by: str
    target_error: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The entry `measurement` of summary.json."""
        content: dict[str, Any] = {"seed": self.seed, "training_seed": self.training_seed}
        content |= {"steps": self.steps, "ended_by": self.ended_by}
        return content | ({"target_error": dict(self.target_error)} if self.target_error else {})


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
        self.reasons = self._reasons()

    def _reasons(self) -> list[str]:
        found, given = [], self.diagnostics
        if self.bonds is not None:
            found += self.bonds.reasons(self.steps_key, self.is_direct)
        if not self.has_equilibrated:
            found.append(
                "the chains have not equilibrated in the first half of the measured steps, or drift still; "
                f"raise datamodule.equilibration_steps and {self.steps_key}"
            )
        if math.isnan(given["r_hat"]):
            found.append(f"too few steps are measured for R-hat; raise {self.steps_key}, to 4 at the least")
        elif given["r_hat"] > MAX_R_HAT:
            found.append(
                f"R-hat = {given['r_hat']:.3f} is above {MAX_R_HAT}: the chains have not equilibrated; "
                f"raise datamodule.equilibration_steps and {self.steps_key}"
            )
        if not given["effective_sample_size"] >= MIN_EFFECTIVE_SAMPLES:
            found.append(
                f"only {given['effective_sample_size']:.0f} effective samples (at least {MIN_EFFECTIVE_SAMPLES:.0f} "
                f"are needed); raise {self.steps_key}"
            )
        if self._is_refused:
            found.append(
                f"det dz/dx is negative for a fraction {given['negative_determinants']:.2e} of the samples: the map "
                "folds, p(x) is not normalised and F and S are not reported; measure with "
                "sampler.proton_sampling=direct, or lower optimizer.flow_max_norm (with optimizer=adam "
                "flow_learning_rate) and start again"
            )
        return found

    @property
    def _is_refused(self) -> bool:
        return not self.is_direct and not self.is_ceimc and self.diagnostics.get("negative_determinants", 0.0) > 0.0

    def terms(self) -> dict[str, Any]:
        """{"value":, "error":} of each term; F and S are null where they are refused or not known.

        The finite-size corrections follow, with their unit and method.
        """
        content: dict[str, Any] = {}
        for name, found in self.estimates.items():
            known = not ((self._is_refused or self.is_ceimc) and name in NEEDS_INVERTIBLE_MAP)
            value, error = (found.value, found.error) if known else (math.nan, math.nan)
            content[name] = {"value": plain(value), "error": plain(error)}
        for name, correction in self.finite_size.items():
            content[name] = asdict(correction) | {"error": plain(correction.error)}
        return content

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
                name: {
                    cause: None if (self._is_refused or self.is_ceimc) and name in NEEDS_INVERTIBLE_MAP else plain(part)
                    for cause, part in parts.items()
                }
                for name, parts in self.budget.items()
            }
        }

    def correlation(self) -> dict[str, Any]:
        """The entry `correlations`: how the statistical errors of F, E and P are correlated; not of fixed protons."""
        if not self.correlations or not self.point.temperature_kelvin:
            return {}
        return {"correlations": {"terms": list(CORRELATED), "matrix": self.correlations}}


@dataclass
class TestResult:
    """Everything that `test` found.

    Attributes:
        system: what was computed.
        step: optimizer steps of the measured parameters.
        states: the results at each state point.
        diagnostics: of the chains of all states together.
        measurement: how it was measured.
        training: the verdict on the training, see `judge`; None before.
        common_reasons: why no number is to be trusted; empty if they are.
    """

    __test__ = False  # no test class of pytest's

    system: dict[str, Any]
    step: int
    states: list[StateResult]
    diagnostics: dict[str, float]
    measurement: MeasurementInfo | None = None
    training: dict[str, Any] | None = None
    common_reasons: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.common_reasons = self._reasons()

    def _reasons(self) -> list[str]:
        found, given = [], self.diagnostics
        if given.get("drifting_terms", 0.0) > 0.0:
            found.append(
                f"the walkers drift after {given['equilibration_steps']:.0f} sweeps of equilibration; "
                "raise datamodule.equilibration_steps"
            )
        unreached = given.get("unreached_fraction", 0.0)
        if unreached > MAX_UNREACHED:
            found.append(
                f"the flow could not be inverted for a fraction {unreached:.2g} of the base protons: F is that of the "
                "others; lower optimizer.flow_max_norm and start again, or measure with "
                "sampler.proton_sampling=delayed sampler.num_proton_steps=20"
            )
        if given.get("ceimc_noise_per_freedom", 0.0) > MAX_NOISE_PER_FREEDOM:
            found.append(
                f"the noise of the energy differences, (s/kT)^2 = {given['ceimc_noise']:.2g}, is too large for so few "
                "electrons: the penalty is not exact; raise sampler.ceimc_electron_walkers, or lower "
                "sampler.ceimc_proton_width"
            )
        if given["num_stranded"] > 0.0:
            found.append("chains stand where the density is zero or not finite; start from another system.structure")
        if abs(given["electron_drift"]) > electron_drift_limit(given):
            found.append(
                "the electrons have not settled around the moved protons "
                f"(drift of ln|psi|^2 = {given['electron_drift']:.3f}); "
                "raise sampler.num_electron_steps"
            )
        return found

    @property
    def is_ceimc(self) -> bool:
        """Whether the protons are those of exp(-E/kT), in place of p(x)."""
        return any(state.is_ceimc for state in self.states)

    @property
    def notes(self) -> list[str]:
        """What has been taken into account, and is worth knowing."""
        unreached = self.diagnostics.get("unreached_fraction", 0.0)
        folded = max((state.diagnostics.get("negative_determinants", 0.0) for state in self.states), default=0.0)
        found = [note for state in self.states if (note := self._equilibration(state))]
        if self.is_ceimc:
            found.append("the protons are those of exp(-E/kT) in place of p(x); their chains do not give F and S")
        if self.diagnostics.get("ceimc_noise", 0.0) > MAX_NOISE:
            found.append(
                f"the noise of the energy differences is large, (s/kT)^2 = {self.diagnostics['ceimc_noise']:.2g}: many "
                "moves are rejected for it; raise sampler.ceimc_electron_walkers, or lower sampler.ceimc_proton_width"
            )
        if 0.0 < unreached <= MAX_UNREACHED:
            found.append(
                f"the flow could not be inverted for a fraction {unreached:.1e} of the base protons; F contains "
                f"-kT ln(1 - {unreached:.1e}) / N for it, and its error as much again"
            )
        if folded > 0.0 and all(state.is_direct for state in self.states):
            found.append(
                f"the map folds for a fraction {folded:.1e} of the samples; one x is taken for each z, and F remains "
                "an upper bound"
            )
        return found

    def _equilibration(self, state: StateResult) -> str:
        discarded = state.diagnostics.get("discarded_steps", 0.0)
        if not discarded or self.measurement is None:
            return ""
        where = f"{state.point}: " if len(self.states) > 1 else ""
        return (
            f"{where}the first {discarded:.0f} of {self.measurement.steps} steps are not equilibrated and do not count"
        )

    @property
    def reasons(self) -> list[str]:
        """Why the numbers are not to be trusted, with the state point where there are several."""
        several = len(self.states) > 1
        own = [
            f"{result.point}: {reason}" if several else reason for result in self.states for reason in result.reasons
        ]
        return own + self.common_reasons

    def as_dict(self) -> dict[str, Any]:
        """What summary.json holds.

        With one state point: {"value":, "error":} of each term, the bracket, diagnostics, converged, reasons and the
        published values nearest to it. With several: a list of these under `states`, and what they have in common.
        At the end the verdicts on sampling and training, and the units of the terms.
        """
        # `report` tells how much trainings of one state differ; this run knows of none but its own
        content: dict[str, Any] = {"system": dict(self.system), "step": self.step, "trainings": 1}
        if self.measurement is not None:
            content["measurement"] = self.measurement.as_dict()
        verdict = {"converged": not self.reasons, "reasons": self.reasons}
        if len(self.states) == 1:
            (only,) = self.states
            known = {"published": only.published}
            numbers = only.terms() | only.by_start() | only.bracket() | only.error_budget() | only.correlation()
            numbers |= _diagnostics(self.diagnostics | only.diagnostics)
            return content | numbers | verdict | known | self._verdicts() | _units(only.terms())
        content["states"] = [
            _state_point(result.point)
            | result.terms()
            | result.by_start()
            | result.bracket()
            | result.error_budget()
            | result.correlation()
            | _diagnostics(result.diagnostics)
            | {"converged": not (result.reasons or self.common_reasons), "reasons": result.reasons}
            | {"published": result.published}
            for result in self.states
        ]
        shared = _diagnostics(self.diagnostics) | verdict | self._verdicts()
        return content | shared | _units(self.states[0].terms())

    def _verdicts(self) -> dict[str, Any]:
        """The entry `verdicts`, where the training has been judged."""
        if self.training is None:
            return {}
        return {"verdicts": {"sampling": {"ok": not self.reasons, "reasons": self.reasons}, "training": self.training}}

    @property
    def is_converged(self) -> bool:
        """Whether both sampling and training are known to be good."""
        return not self.reasons and self.training is not None and self.training["ok"] is True

    def judge(self, run_dir: Path) -> None:
        """Look at the training in a run folder, and at psi: does F still fall, does the virial pressure hold?"""
        errors, virials = dict[State, float](), dict[State, Virial]()
        for result in self.states:
            state = State(result.point.rs, result.point.temperature_kelvin)
            errors[state] = result.estimates["free_energy_per_atom"].error
            if result.virial_excess is not None:
                virials[state] = Virial(*result.virial_excess[:2], result.estimates["pressure_gpa"].error)
        several = len(self.states) > 1
        self.training = judge_training(run_dir, self.step, errors, several, self.system["num_atoms"], virials)

    def fit_lines(self, run_dir: Path) -> None:
        """Estimate the gap of psi at each state point from the training in a run folder."""
        for result in self.states:
            if result.gaps is not None:
                result.gaps.fit_line(run_dir, self.step, several=len(self.states) > 1)

    def write(self, folder: Path, provenance: Mapping[str, Any] | None = None) -> None:
        """summary.json, pair_correlation.csv, structure_factor.csv and, where it was measured, n(k).

        Args:
            folder: of the files.
            provenance: which command of which version found it when.
        """
        write_summary(folder, self.as_dict() | ({"provenance": dict(provenance)} if provenance else {}))
        write_pair_correlation(folder, [(result.point, result.radial) for result in self.states])
        write_structure_factor(folder, [(result.point, result.structure) for result in self.states])
        write_momentum_distribution(folder, [(each.point, each.momentum) for each in self.states if each.momentum])


def _state_point(point: StatePoint) -> dict[str, float]:
    temperature = {"temperature_kelvin": point.temperature_kelvin} if point.temperature_kelvin else {}
    return {"rs": point.rs} | temperature


def _units(terms: Mapping[str, Any]) -> dict[str, Any]:
    """The entry `units`, by the names of the terms."""
    return {"units": {name: TERMS[name].unit for name in terms if name in TERMS}}


def _diagnostics(values: dict[str, float]) -> dict[str, Any]:
    return {"diagnostics": {name: plain(value) for name, value in values.items()}}


def plain(value: float) -> float | None:
    """JSON knows no nan."""
    return float(value) if math.isfinite(value) else None
