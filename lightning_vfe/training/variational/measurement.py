"""From batches to values: what a training step logs, and what `validate` and `test` report."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lightning_vfe.analysis.published import nearest_published
from lightning_vfe.analysis.states import State, state_suffix
from lightning_vfe.optim.collectives import Collectives
from lightning_vfe.physics.radial_series import RadialSeries
from lightning_vfe.physics.state_point import StatePoint, WalkerStates
from lightning_vfe.physics.statistics import Estimate
from lightning_vfe.state.batch import Batch, Sample
from lightning_vfe.state.variational_state import VariationalState
from lightning_vfe.training.variational.error_budget import Budget, error_budget
from lightning_vfe.training.variational.metrics import (
    FreeEnergyMetric,
    of_reached_protons,
    start_of_average,
    with_base_error,
)
from lightning_vfe.training.variational.summary import MeasurementInfo, StateResult, TestResult

MAX_FRACTION = 0.99
"""Largest fraction that is taken for unreached: beyond it there is nothing to correct."""


def walker_diagnostics(sample: Sample) -> dict[str, Tensor]:
    """Spread of the local energy, and 1 for a negative determinant, of every proton walker.  # (W,) each"""
    total = sample.electronic.total
    deviation = total - total.mean(1, keepdim=True)
    values = {"local_energy_variance": deviation.abs().square().mean(1)}
    if sample.protons is not None:
        values["negative_determinants"] = (sample.protons.sign_det_dzdx <= 0).to(total.real.dtype)
    return values


def column(name: str, points: tuple[StatePoint, ...], number: int) -> str:
    """Name of a column of metrics.csv: the term, with its state point where there are several."""
    if len(points) == 1:
        return name
    point = points[number]
    return f"{name}@{state_suffix(point.rs, point.temperature_kelvin or None)}"


def step_values(state: VariationalState, batch: Batch, sample: Sample) -> dict[str, Tensor]:
    """Means over the walkers of one step for each state point, with the scatter of the walkers as error.

    They are for watching, not results.
    """
    strata, values = state.strata, {}
    stratum, terms = _of_all_processes(state.independent_strata(batch), sample.terms)
    of_walker, diagnostics = _of_all_processes(batch.stratum, walker_diagnostics(sample))
    weight, walker_weight = strata.weights(stratum), strata.weights(of_walker)
    for number in range(strata.num_states):
        own = strata.state_index(stratum) == number
        for name, term in terms.items():
            mean, error = _mean(term[own], weight[own])
            values[column(name, strata.points, number)] = mean
            values[column(f"{name}_error", strata.points, number)] = error
        own = strata.state_index(of_walker) == number
        for name, term in diagnostics.items():
            values[column(name, strata.points, number)] = _mean(term[own], walker_weight[own])[0]
    return values


def has_finite_free_energy(state: VariationalState, values: dict[str, Tensor]) -> bool:
    """Whether F is finite at all state points, from the `step_values`."""
    names = [column("free_energy_per_atom", state.strata.points, i) for i in range(state.strata.num_states)]
    return bool(torch.stack([values[name] for name in names]).isfinite().all())


def _of_all_processes(stratum: Tensor, values: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Strata and values of the samples of all processes, in two messages."""
    collectives = Collectives()
    columns = collectives.gather(torch.stack(list(values.values()), dim=-1))  # (samples, names)
    return collectives.gather(stratum), dict(zip(values, columns.unbind(-1), strict=True))


def _mean(values: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean, and its error from the scatter of independent samples."""
    share = (weight / weight.sum()).to(values)
    return share @ values, values.std() * share.square().sum().sqrt()


class Measurement:
    """Averages over batches of walkers with frozen parameters.

    Args:
        state: networks and walkers.

    Attributes:
        num_steps: batches so far.
        training_seed: of the training whose networks are measured; None is that of the state.
    """

    def __init__(self, state: VariationalState) -> None:
        self.state = state
        self.metric = FreeEnergyMetric(state.strata)
        self.num_steps = 0
        self.training_seed: int | None = None
        self.radial: RadialSeries | None = None
        self._stratum: Tensor | None = None

    def reset(self) -> None:
        """Start again."""
        self.metric.reset()
        self.num_steps = 0
        self.radial = RadialSeries(self.state.system.cell, self.state.system.num_up)

    def add(self, batch: Batch, sample: Sample) -> None:
        """Count a batch."""
        assert self.radial is not None, "call reset() first"
        strata = self.state.independent_strata(batch)
        self.metric.update(sample.terms, strata, walker_diagnostics(sample), batch.stratum, batch.report)
        rs = batch.states.rs[:, None, None]
        self.radial.update(batch.protons / rs, batch.electrons / rs.unsqueeze(1))
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
            base_error, fraction = self.base_error(point), common.get("unreached_fraction", 0.0)
            given = base_error, fraction, point.kT, self.state.system.num_atoms
            whole = of_reached_protons(statistical, *given[1:]) if fraction else statistical
            whole = with_base_error(whole, base_error, point.kT) if base_error else whole
            found.append((whole, error_budget(statistical, *given)))
        return found

    def _common(self) -> dict[str, float]:
        """Diagnostic numbers of the whole run."""
        common = self.metric.common_diagnostics()
        if "num_failed_inversions" in common:
            common["unreached_fraction"] = self._unreached_fraction(common)
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
        assert self.radial is not None
        assert self._stratum is not None
        strata, collectives = self.state.strata, Collectives()
        stratum = collectives.gather(self._stratum).cpu()
        states = []
        for number, ((found, budget), diagnostics) in enumerate(
            zip(self.estimates(), self.metric.state_diagnostics(collectives.gather), strict=True)
        ):
            point, own = strata.points[number], strata.state_index(stratum) == number
            unequilibrated = self.metric.unequilibrated[number]
            start = start_of_average(unequilibrated, self.num_steps)
            walkers = {name: collectives.gather(rows).cpu() for name, rows in self.radial.per_walker(start).items()}
            weights = strata.weights(stratum[own])
            g = self.radial.bins.result({name: rows[own] for name, rows in walkers.items()}, weights, point.rs)
            diagnostics["discarded_steps"] = float(start)
            states.append(
                StateResult(
                    point,
                    found,
                    diagnostics,
                    g,
                    steps_key,
                    self._is_direct,
                    self._published(point),
                    budget,
                    has_equilibrated=2 * unequilibrated <= self.num_steps,
                )
            )
        return TestResult(self.system(), step, states, self._common(), info or self.info(steps_key))

    def info(self, ended_by: str, target_error: dict[str, float] | None = None) -> MeasurementInfo:
        """How it was measured.

        Args:
            ended_by: what ended it; of a setting, its name.
            target_error: errors that it was to reach.
        """
        seed, end = self.state.seed, ended_by.rpartition(".")[2]
        trained = seed if self.training_seed is None else self.training_seed
        return MeasurementInfo(seed, trained, self.num_steps, end, target_error or {})

    def _published(self, point: StatePoint) -> list[dict[str, Any]]:
        """The published values nearest to a state point."""
        state, twists = State(point.rs, point.temperature_kelvin), self.state.strata.twists
        num_twists = math.inf if twists.is_random else float(twists.num_averaged)
        if num_twists == 1 and not twists.is_gamma:
            num_twists = math.nan
        structure = self.state.structure if isinstance(self.state.structure, str) else ""
        return nearest_published(self.system(), state, num_twists, structure)

    @property
    def _is_direct(self) -> bool:
        """Whether the protons are found from base protons, so that folds of the map do no harm."""
        return not self.state.is_fixed and self.state.sampler.proton_sampling == "direct"

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

    def system(self) -> dict[str, Any]:
        """What is computed, as checkpoints and summaries say it."""
        system, points = self.state.system, self.state.strata.points
        content: dict[str, Any] = {"num_atoms": system.num_atoms, "nucleus": system.nucleus}
        content["protons"] = "fixed" if self.state.is_fixed else "sampled"
        if len(points) > 1:
            return content | {"states": [[point.rs, point.temperature_kelvin] for point in points]}
        content["rs"] = points[0].rs
        return content if self.state.is_fixed else content | {"temperature_kelvin": points[0].temperature_kelvin}
