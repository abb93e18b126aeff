"""The result of `test`: all state points, diagnostics, the verdicts, and what summary.json says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_vfe.analysis.states import State
from lightning_vfe.analysis.terms import TERMS
from lightning_vfe.analysis.training_verdict import judge_training
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.training.variational.sampling_verdict import common_reasons, sampling_notes
from lightning_vfe.training.variational.state_result import StateResult, plain
from lightning_vfe.training.variational.summary_files import (
    write_momentum_distribution,
    write_pair_correlation,
    write_structure_factor,
    write_summary,
)


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
        self.common_reasons = common_reasons(self.diagnostics)

    @property
    def is_ceimc(self) -> bool:
        """Whether the protons are those of exp(-E/kT), in place of p(x)."""
        return any(state.is_ceimc for state in self.states)

    @property
    def notes(self) -> list[str]:
        """What has been taken into account, and is worth knowing."""
        folded = max((state.diagnostics.get("negative_determinants", 0.0) for state in self.states), default=0.0)
        are_direct = all(state.is_direct for state in self.states)
        found = [note for state in self.states if (note := self._equilibration(state))]
        return found + sampling_notes(self.diagnostics, self.is_ceimc, folded if are_direct else 0.0)

    def _equilibration(self, state: StateResult) -> str:
        discarded = state.diagnostics.get("discarded_steps", 0.0)
        if not discarded or self.measurement is None:
            return ""
        where = f"{state.point}: " if len(self.states) > 1 else ""
        steps = self.measurement.steps
        return f"{where}the first {discarded:.0f} of {steps} steps are not in equilibrium and are discarded"

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
            numbers = only.numbers() | _diagnostics(self.diagnostics | only.diagnostics)
            known = {"published": only.published}
            return content | numbers | verdict | known | self._verdicts() | _units(only.terms())
        content["states"] = [
            _state_point(result.point)
            | result.numbers()
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
        """Look at the training in a run folder, and at psi: does F still fall, does the virial pressure hold?

        Call `fit_lines` first: the line says how much the variance of E_loc matters for F.
        """
        states = {State(each.point.rs, each.point.temperature_kelvin): each.for_verdict for each in self.states}
        several = len(self.states) > 1
        self.training = judge_training(run_dir, self.step, states, several, self.system["num_atoms"])

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
