"""What a training step logs: means over the walkers, for watching and not as results."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_vfe.analysis.psi_gap import OF_PSI
from lightning_vfe.analysis.states import state_suffix
from lightning_vfe.optim.collectives import Collectives
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.state.batch import Batch, Sample
from lightning_vfe.state.variational_state import VariationalState
from lightning_vfe.training.variational.bracket import energy_noise, walker_free_energy_of_psi


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
