"""From batches to the result of `validate` and `test`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_vfe.optim.collectives import Collectives
from lightning_vfe.physics.finite_size import Correction, holds_long_waves, two_body_corrections
from lightning_vfe.physics.state_point import StatePoint, WalkerStates
from lightning_vfe.physics.static_structure import BOND_CUTOFF, molecular_fraction
from lightning_vfe.physics.statistics import Estimate
from lightning_vfe.state.batch import Batch, Sample
from lightning_vfe.state.settling import Settling
from lightning_vfe.state.variational_state import VariationalState
from lightning_vfe.training.variational.bonds import Bonds, bonds_of_states
from lightning_vfe.training.variational.bracket import BracketSeries, Gaps
from lightning_vfe.training.variational.curves import CurveSeries
from lightning_vfe.training.variational.error_budget import Budget, error_budget
from lightning_vfe.training.variational.metrics import (
    FreeEnergyMetric,
    of_reached_protons,
    start_of_average,
    with_base_error,
)
from lightning_vfe.training.variational.state_result import StateResult
from lightning_vfe.training.variational.step_values import walker_diagnostics
from lightning_vfe.training.variational.summary import MeasurementInfo, TestResult
from lightning_vfe.training.variational.system_entry import published_values, system_entry
from lightning_vfe.training.variational.virial import VirialSeries

MAX_FRACTION = 0.99
"""Largest fraction that is taken for unreached: beyond it there is nothing to correct."""


class Measurement:
    """Averages over batches of walkers with frozen parameters.

    Args:
        state: networks and walkers.

    Attributes:
        num_steps: batches so far.
        training_seed: of the training whose networks are measured; None is that of the state.
        settling: how the equilibration before it ended; None where nobody watched it.
    """

    def __init__(self, state: VariationalState) -> None:
        self.state = state
        self.metric = FreeEnergyMetric(state.strata)
        self.gaps, self.virial = BracketSeries(state), VirialSeries(state)
        self.num_steps = 0
        self.training_seed: int | None = None
        self.settling: Settling | None = None
        self.curves: CurveSeries | None = None
        self._stratum: Tensor | None = None

    def reset(self, momentum_points: int = 0) -> None:
        """Start again.

        Args:
            momentum_points: electrons that are moved in every sample for n(k); 0 leaves it out.
        """
        self.metric.reset()
        self.gaps, self.virial = BracketSeries(self.state), VirialSeries(self.state)
        self.num_steps = 0
        self.curves = CurveSeries(self.state, momentum_points)

    def add(self, batch: Batch, sample: Sample) -> None:
        """Count a batch."""
        assert self.curves is not None, "call reset() first"
        strata = self.state.independent_strata(batch)
        rs = batch.states.rs[:, None, None]
        protons, electrons = batch.protons / rs, batch.electrons / rs.unsqueeze(1)
        terms = dict(sample.terms)
        if not self.state.is_fixed:
            bond = BOND_CUTOFF / batch.states.rs
            terms["molecular_fraction"] = molecular_fraction(protons, self.state.system.cell, bond)
        self.metric.update(terms, strata, walker_diagnostics(sample), batch.stratum, batch.report)
        self.gaps.add(sample)
        self.virial.add(batch, sample)
        self.curves.add(protons, electrons, batch.states)
        self._stratum = batch.stratum
        self.num_steps += 1

    def estimates(self) -> list[tuple[dict[str, Estimate], Budget]]:
        """Every term so far with its whole error, and what the error consists of, for each state point.

        All processes call it together.

        Raises:
            FloatingPointError: samples that are not finite.
        """
        common, found = self._common(), []
        for point, statistical in zip(self.state.strata.points, self.metric.compute(), strict=True):
            fraction = common.get("unreached_fraction", 0.0)
            budget = error_budget(statistical, self.base_error(point), fraction, point.kT, self.state.system.num_atoms)
            found.append((self._whole(statistical, point, common), budget))
        return found

    def _whole(
        self, statistical: dict[str, Estimate], point: StatePoint, common: dict[str, float]
    ) -> dict[str, Estimate]:
        """The estimates with base protons that have no x, and with the error of ln Z_ML: no scatter shows them."""
        base_error, fraction = self.base_error(point), common.get("unreached_fraction", 0.0)
        whole = of_reached_protons(statistical, fraction, point.kT, self.state.system.num_atoms)
        return with_base_error(whole, base_error, point.kT) if base_error else whole

    def _common(self) -> dict[str, float]:
        """Diagnostic numbers of the whole run."""
        common = self.metric.common_diagnostics()
        if "num_failed_inversions" in common:
            common["unreached_fraction"] = self._unreached_fraction(common)
        if self.settling is not None:
            common["equilibration_steps"] = float(self.settling.num_sweeps)
            common["drifting_terms"] = float(len(self.settling.drifting))
        return common

    def result(
        self, step: int, steps_key: str = "datamodule.test_steps", info: MeasurementInfo | None = None
    ) -> TestResult:
        """The result of all batches, on all processes.

        Args:
            step: optimizer steps of the measured parameters.
            steps_key: setting of the number of measured steps, for advice.
            info: how it was measured.
        """
        assert self.curves is not None
        assert self._stratum is not None
        collectives, common = Collectives(), self._common()
        stratum = collectives.gather(self._stratum).cpu()
        measured = list(zip(self.estimates(), self.metric.state_diagnostics(collectives.gather), strict=True))
        starts = [start_of_average(unequilibrated, self.num_steps) for unequilibrated in self.metric.unequilibrated]
        excess = self.virial.result(stratum, collectives.gather, starts)
        bonds = self._bonds(stratum, starts)
        states: list[StateResult] = []
        for gaps, ((found, budget), diagnostics) in zip(
            self.gaps.result(stratum, collectives.gather, starts), measured, strict=True
        ):
            number, is_ceimc = len(states), self._samples("ceimc")
            counted = number, starts[number], stratum
            structure = self.curves.structure(*counted)
            corrections = self._finite_size(gaps.point, structure)
            result = StateResult(
                gaps.point,
                found,
                diagnostics
                | {
                    "discarded_steps": float(starts[number]),
                    "largest_share": self.metric.largest_shares[number],
                },
                self.curves.radial(*counted),
                steps_key,
                self._samples("direct"),
                is_ceimc,
                published_values(self.state, gaps.point),
                budget,
                has_equilibrated=2 * self.metric.unequilibrated[number] <= self.num_steps,
                # chains on exp(-E/kT) say nothing of p(x)
                gaps=None if is_ceimc else self._with_exact_free_energy(gaps, common),
                structure=structure,
                momentum=self.curves.momentum(*counted),
                finite_size=corrections,
                correlations=self.metric.correlations[number],
                virial_excess=excess[number],
                bonds=bonds[number],
            )
            states.append(result)
        return TestResult(system_entry(self.state), step, states, common, info or self.info(steps_key))

    def _bonds(self, stratum: Tensor, starts: list[int]) -> list[Bonds | None]:
        """The molecular fraction of the chains of each state point over the steps that count."""
        if self.state.is_fixed:
            return [None] * self.state.strata.num_states
        fraction, start = self.metric.series()["molecular_fraction"], self.state.place().fields.get("start")
        return bonds_of_states(self.state.strata, fraction, stratum, start, starts, Collectives().gather)

    def _finite_size(self, point: StatePoint, structure: Mapping[str, Any]) -> dict[str, Correction]:
        """Two-body corrections; none where the cell is too small for them."""
        num_atoms = self.state.system.num_atoms
        if not holds_long_waves(point, num_atoms):
            return {}
        own = "electron_fluctuation" if self.state.system.num_protons else "electron_electron"
        return two_body_corrections(point, num_atoms, structure.get(own))

    def _with_exact_free_energy(self, gaps: Gaps, common: dict[str, float]) -> Gaps:
        """The exact free energy of psi gets the errors that F has."""
        if gaps.flow is not None and gaps.flow.free_energy is not None:
            found = self._whole({"free_energy_per_atom": gaps.flow.free_energy}, gaps.point, common)
            gaps.of_psi = found["free_energy_per_atom"]
        return gaps

    def info(self, ended_by: str, target_error: dict[str, float] | None = None) -> MeasurementInfo:
        """How it was measured.

        Args:
            ended_by: what ended it; of a setting, its name.
            target_error: errors that it was to reach.
        """
        seed, end = self.state.seed, ended_by.rpartition(".")[2]
        trained = seed if self.training_seed is None else self.training_seed
        return MeasurementInfo(seed, trained, self.num_steps, end, target_error or {})

    def _samples(self, proton_sampling: str) -> bool:
        """Whether the protons are sampled in this way."""
        return not self.state.is_fixed and self.state.sampler.proton_sampling == proton_sampling

    def _unreached_fraction(self, diagnostics: dict[str, float]) -> float:
        """Fraction of the base protons that the map does not reach.

        It is the share of failures among draws. A chain meets each of these protons as often as it leaves the others
        for them: by detailed balance their share is that of the failures over the probability to come back, for which
        that of moving at all stands. With several state points it is the mean over all of them.
        """
        failed = diagnostics["num_failed_inversions"] / self.state.counts.num_proton_walkers
        moved = 1.0 - (1.0 - diagnostics["proton_acceptance"]) ** getattr(self.state.sampler, "num_proton_steps", 1)
        return min(failed / moved, MAX_FRACTION) if moved > 0 else MAX_FRACTION * (failed > 0)

    def base_error(self, point: StatePoint) -> float:
        """Standard error of -kT ln Z_ML per atom at a state point, in Ha; 0 where there is no base."""
        if self.state.proton_density is None:
            return 0.0
        like = torch.zeros((), dtype=torch.float64)
        states = WalkerStates.at(point.rs, point.temperature_kelvin, like=like)
        return float(self.state.proton_density.base.free_energy_error(states)) / self.state.system.num_atoms
