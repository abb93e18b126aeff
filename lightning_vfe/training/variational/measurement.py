"""From batches to values: what a training step logs, and what `validate` and `test` report."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lightning_vfe.analysis.psi_gap import OF_PSI
from lightning_vfe.analysis.published import nearest_published
from lightning_vfe.analysis.states import State, state_suffix
from lightning_vfe.optim.collectives import Collectives
from lightning_vfe.physics.finite_size import two_body_corrections
from lightning_vfe.physics.observables import RadialDistributions
from lightning_vfe.physics.state_point import StatePoint, WalkerStates
from lightning_vfe.physics.static_structure import BOND_CUTOFF, StructureFactors, molecular_fraction
from lightning_vfe.state.batch import Batch, Sample
from lightning_vfe.state.variational_state import VariationalState
from lightning_vfe.training.variational.bracket import BracketSeries, energy_noise, walker_free_energy_of_psi
from lightning_vfe.training.variational.metrics import FreeEnergyMetric, of_reached_protons, with_base_error
from lightning_vfe.training.variational.summary import StateResult, TestResult

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
    """

    def __init__(self, state: VariationalState) -> None:
        self.state = state
        self.metric = FreeEnergyMetric(state.strata)
        self.gaps = BracketSeries(state)
        self.radial: RadialDistributions | None = None
        self.structure: StructureFactors | None = None
        self._stratum: Tensor | None = None

    def reset(self) -> None:
        """Start again."""
        self.metric.reset()
        self.gaps = BracketSeries(self.state)
        self.radial = RadialDistributions(self.state.system.cell, num_up=self.state.system.num_up)
        self.structure = StructureFactors(self.state.system.cell)

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
        self.radial.update(protons, electrons)
        self.structure.update(protons, electrons)
        self._stratum = batch.stratum

    def result(self, step: int, steps_key: str = "datamodule.test_steps") -> TestResult:
        """The result of all batches, on all processes.

        Args:
            step: optimizer steps of the measured parameters.
            steps_key: setting of the number of measured steps, for advice.
        """
        assert self.radial is not None
        assert self.structure is not None
        assert self._stratum is not None
        strata, collectives = self.state.strata, Collectives()
        radial = {name: collectives.gather(values).cpu() for name, values in self.radial.per_walker().items()}
        structure = {name: collectives.gather(values).cpu() for name, values in self.structure.per_walker().items()}
        stratum = collectives.gather(self._stratum).cpu()
        common = self.metric.common_diagnostics()
        if "num_failed_inversions" in common:
            common["unreached_fraction"] = self._unreached_fraction(common)
        measured = self.metric.compute(), self.metric.state_diagnostics(collectives.gather)
        states = []
        for number, (found, diagnostics, gaps) in enumerate(
            zip(*measured, self.gaps.result(stratum, collectives.gather), strict=True)
        ):
            point, own = strata.points[number], strata.state_index(stratum) == number
            weights = strata.weights(stratum[own])
            g = self.radial.result({name: values[own] for name, values in radial.items()}, weights, point.rs)
            found = self._with_what_no_scatter_shows(found, point, common)
            if gaps.flow is not None and gaps.flow.free_energy is not None:
                of_psi = {"free_energy_per_atom": gaps.flow.free_energy}
                gaps.of_psi = self._with_what_no_scatter_shows(of_psi, point, common)["free_energy_per_atom"]
            known = self._published(point)
            ways = self._samples("direct"), self._samples("ceimc")  # chains of the latter say nothing of p(x)
            result = StateResult(point, found, diagnostics, g, steps_key, *ways, known, None if ways[1] else gaps)
            own_structure = {name: values[own] for name, values in structure.items()}
            result.structure = self.structure.result(own_structure, weights, point.rs)
            fluctuation = result.structure.get("electron_fluctuation")
            result.finite_size = two_body_corrections(point, self.state.system.num_atoms, fluctuation)
            states.append(result)
        return TestResult(self.system(), step, states, common)

    def _published(self, point: StatePoint) -> list[dict[str, Any]]:
        """The published values nearest to a state point."""
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

    def _with_what_no_scatter_shows(
        self, found: dict[str, Any], point: StatePoint, common: dict[str, float]
    ) -> dict[str, Any]:
        """The estimates with base protons that have no x, and with the error of ln Z_ML."""
        if "unreached_fraction" in common:
            found = of_reached_protons(found, common["unreached_fraction"], point.kT, self.state.system.num_atoms)
        if self.state.proton_density is None:
            return found
        like = torch.zeros((), dtype=torch.float64)
        states = WalkerStates.at(point.rs, point.temperature_kelvin, like=like)
        error = float(self.state.proton_density.base.free_energy_error(states)) / self.state.system.num_atoms
        return with_base_error(found, error, point.kT)

    def system(self) -> dict[str, Any]:
        """What is computed, as checkpoints and summaries say it."""
        system, points = self.state.system, self.state.strata.points
        content: dict[str, Any] = {"num_atoms": system.num_atoms, "nucleus": system.nucleus}
        content["protons"] = "fixed" if self.state.is_fixed else "sampled"
        if len(points) > 1:
            return content | {"states": [[point.rs, point.temperature_kelvin] for point in points]}
        content["rs"] = points[0].rs
        return content if self.state.is_fixed else content | {"temperature_kelvin": points[0].temperature_kelvin}
