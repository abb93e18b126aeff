"""From batches to values: what a training step logs, and what `validate` and `test` report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_vfe.analysis.psi_gap import OF_PSI
from lightning_vfe.analysis.published import nearest_published
from lightning_vfe.analysis.states import State, state_suffix
from lightning_vfe.optim.collectives import Collectives
from lightning_vfe.physics.block_series import BlockSeries
from lightning_vfe.physics.finite_size import Correction, holds_long_waves, two_body_corrections
from lightning_vfe.physics.momentum_distribution import MomentumDistribution, MomentumDistributions
from lightning_vfe.physics.observables import RadialDistributions
from lightning_vfe.physics.state_point import StatePoint, WalkerStates
from lightning_vfe.physics.static_structure import BOND_CUTOFF, StructureFactors, molecular_fraction
from lightning_vfe.physics.statistics import Estimate
from lightning_vfe.physics.system import NO_PROTONS
from lightning_vfe.sampling.random import WalkerRandom
from lightning_vfe.state.batch import Batch, Sample
from lightning_vfe.state.settling import Settling
from lightning_vfe.state.variational_state import VariationalState
from lightning_vfe.training.variational.bonds import Bonds, bonds_of_states
from lightning_vfe.training.variational.bracket import BracketSeries, Gaps, energy_noise, walker_free_energy_of_psi
from lightning_vfe.training.variational.error_budget import Budget, error_budget
from lightning_vfe.training.variational.metrics import (
    FreeEnergyMetric,
    of_reached_protons,
    start_of_average,
    with_base_error,
)
from lightning_vfe.training.variational.summary import MeasurementInfo, StateResult, TestResult
from lightning_vfe.training.variational.virial import VirialSeries

MAX_FRACTION = 0.99
"""Largest fraction that is taken for unreached: beyond it there is nothing to correct."""

MOMENTUM_SEED = 2**31
"""Added to the seed of the chains, for the random numbers of n(k)."""


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
    stratum, terms = _of_all_processes(state.independent_strata(batch), sample.terms | _noise(state, batch, sample))
    terms |= _free_energy_of_psi(state, terms, stratum)
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


def _noise(state: VariationalState, batch: Batch, sample: Sample) -> dict[str, Tensor]:
    """What `_free_energy_of_psi` takes, if every stratum has two proton walkers; else nothing.  # (W,) each"""
    if state.is_fixed or state.counts.num_proton_walkers < 2 * len(state.strata):
        return {}
    return {"noise": energy_noise(sample.electronic.total), "kT": batch.states.kT}


def _free_energy_of_psi(state: VariationalState, terms: dict[str, Tensor], stratum: Tensor) -> dict[str, Tensor]:
    """The column OF_PSI of each walker of all processes; takes its ingredients out of the terms."""
    if "noise" not in terms:
        return {}
    given = terms["free_energy_per_atom"], terms.pop("noise"), terms.pop("kT"), state.system.num_atoms
    return {OF_PSI: walker_free_energy_of_psi(*given, stratum, len(state.strata))}


def mean_free_energy(state: VariationalState, values: dict[str, Tensor]) -> float:
    """Mean of F per atom over the state points in Ha, from the `step_values`; finite where all of them are."""
    names = [column("free_energy_per_atom", state.strata.points, i) for i in range(state.strata.num_states)]
    return float(torch.stack([values[name] for name in names]).mean())


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
        settling: how the equilibration before it ended; None where nobody watched it.
    """

    def __init__(self, state: VariationalState) -> None:
        self.state = state
        self.metric = FreeEnergyMetric(state.strata)
        self.gaps, self.virial = BracketSeries(state), VirialSeries(state)
        self.num_steps = 0
        self.training_seed: int | None = None
        self.settling: Settling | None = None
        self.radial: BlockSeries[RadialDistributions] | None = None
        self.structure: BlockSeries[StructureFactors] | None = None
        self.momentum: BlockSeries[MomentumDistributions] | None = None
        self._momentum_points = 0
        self._stratum: Tensor | None = None

    def reset(self, momentum_points: int = 0) -> None:
        """Start again.

        Args:
            momentum_points: electrons that are moved in every sample for n(k); 0 leaves it out.
        """
        self._momentum_points, self.momentum = momentum_points, None
        self.metric.reset()
        self.gaps, self.virial = BracketSeries(self.state), VirialSeries(self.state)
        self.num_steps = 0
        cell, num_up = self.state.system.cell, self.state.system.num_up
        self.radial = BlockSeries(lambda: RadialDistributions(cell, num_up=num_up))
        self.structure = BlockSeries(lambda: StructureFactors(cell))

    def add(self, batch: Batch, sample: Sample) -> None:
        """Count a batch."""
        assert self.radial is not None, "call reset() first"
        assert self.structure is not None
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
        self.radial.update(protons, electrons)
        self.structure.update(protons, electrons)
        if self._momentum_points and not self.state.strata.twists.is_random:
            if self.momentum is None:
                self.momentum = self._momentum_series(batch.states)
            self.momentum.update(protons, electrons)
        self._stratum = batch.stratum
        self.num_steps += 1

    def _momentum_series(self, states: WalkerStates) -> BlockSeries[MomentumDistributions]:
        """n(k) of these walkers, with random numbers of its own: the chains do not feel it."""
        walkers, wavefunction = self.state.place(), self.state.wavefunction
        random = WalkerRandom(walkers.random.groups, walkers.random.seed + MOMENTUM_SEED, walkers.protons.device)
        arguments = self.state.system.cell, wavefunction, states, random.uniform, self._momentum_points
        return BlockSeries(lambda: MomentumDistributions(*arguments))

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
            radial, structure = self._curves(number, starts[number], stratum)
            corrections = self._finite_size(gaps.point, structure)
            result = StateResult(
                gaps.point,
                found,
                diagnostics | {"discarded_steps": float(starts[number])},
                radial,
                steps_key,
                self._samples("direct"),
                is_ceimc,
                self._published(gaps.point),
                budget,
                has_equilibrated=2 * self.metric.unequilibrated[number] <= self.num_steps,
                # chains on exp(-E/kT) say nothing of p(x)
                gaps=None if is_ceimc else self._with_exact_free_energy(gaps, common),
                structure=structure,
                momentum=self._momentum(number, starts[number], stratum),
                finite_size=corrections,
                correlations=self.metric.correlations[number],
                virial_excess=excess[number],
                bonds=bonds[number],
            )
            states.append(result)
        return TestResult(self.system(), step, states, common, info or self.info(steps_key))

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

    def _curves(self, number: int, start: int, stratum: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
        """g(r) and S(k) of a state point over the steps that count."""
        assert self.radial is not None
        assert self.structure is not None
        strata, gather = self.state.strata, Collectives().gather
        own, rs = strata.state_index(stratum) == number, strata.points[number].rs
        radial, structure = (
            {name: gather(rows).cpu()[own] for name, rows in series.per_walker(start).items()}
            for series in (self.radial, self.structure)
        )
        weights = strata.weights(stratum[own])
        return self.radial.empty.result(radial, weights, rs), self.structure.empty.result(structure, weights, rs)

    def _momentum(self, number: int, start: int, stratum: Tensor) -> MomentumDistribution | None:
        """n(k) of a state point over the steps that count; None where it was not measured."""
        if self.momentum is None:
            return None
        gather, strata, collector = Collectives().gather, self.state.strata, self.momentum.empty
        own, twists = strata.state_index(stratum) == number, gather(collector.states.twist).cpu()
        (values,) = (gather(rows).cpu() for rows in self.momentum.per_walker(start).values())
        return collector.result(values[own], twists[own], strata.weights(stratum[own]), strata.points[number].rs)

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
        """The published values nearest to a state point; none of jellium, since the table is that of hydrogen."""
        if not self.state.system.num_protons:
            return []
        state, twists = State(point.rs, point.temperature_kelvin), self.state.strata.twists
        num_twists = math.inf if twists.is_random else float(twists.num_averaged)
        if num_twists == 1 and not twists.is_gamma:
            num_twists = math.nan
        structure = self.state.structure if isinstance(self.state.structure, str) else ""
        return nearest_published(self.system(), state, num_twists, structure)

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

    def system(self) -> dict[str, Any]:
        """What is computed, as checkpoints and summaries say it."""
        system, points = self.state.system, self.state.strata.points
        if system.num_protons:
            content: dict[str, Any] = {"num_atoms": system.num_atoms, "nucleus": system.nucleus}
            content["protons"] = "fixed" if self.state.is_fixed else "sampled"
        else:
            content = {"num_atoms": system.num_atoms, "protons": NO_PROTONS}
        if len(points) > 1:
            return content | {"states": [[point.rs, point.temperature_kelvin] for point in points]}
        content["rs"] = points[0].rs
        return content if self.state.is_fixed else content | {"temperature_kelvin": points[0].temperature_kelvin}
