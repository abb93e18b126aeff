"""Which walkers the gradients compare, and in which units their energies count."""

from __future__ import annotations

from torch import Tensor

from lightning_vfe.state.batch import Batch
from lightning_vfe.state.variational_state import VariationalState
from lightning_vfe.training.variational.objective import Groups


def strata_groups(state: VariationalState, batch: Batch) -> Groups:
    """The strata."""
    strata = state.strata
    weight = strata.weights(batch.stratum).to(batch.states.rs) * len(strata.twists)
    return Groups(batch.stratum, len(strata), weight)


def same_protons(state: VariationalState, batch: Batch) -> Groups | None:
    """Walkers with the same protons, density and twist; None where each has its own."""
    own_each = not state.is_fixed or state.strata.twists.is_random
    return None if own_each else strata_groups(state, batch)


def flow_groups(state: VariationalState, batch: Batch) -> Groups:
    """The strata; all twists of a state point together where a stratum has one walker only."""
    strata, groups = state.strata, strata_groups(state, batch)
    if state.counts.num_proton_walkers >= 2 * len(strata):
        return groups
    return Groups(strata.state_index(batch.stratum), strata.num_states, groups.weight)


def flow_scale(state: VariationalState, batch: Batch) -> Tensor:
    """kT_0 / kT: the flow of each state minimises its own F / kT.  # (W,)"""
    return state.strata.reference.kT / batch.states.kT


def wavefunction_scale(state: VariationalState, batch: Batch) -> Tensor:
    """(rs / rs_0)^2: in units of rs the kinetic energy is the same at all densities.  # (W,)"""
    return (batch.states.rs / state.strata.reference.rs) ** 2
