"""Whether the virial pressure can be trusted: it holds where psi is stationary under a change of the density."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lightning_vfe.physics.scaling import virial_excess
from lightning_vfe.physics.statistics import Estimate, estimate
from lightning_vfe.state.batch import Batch, Sample
from lightning_vfe.state.variational_state import VariationalState


class VirialSeries:
    """Collects the virial pressure minus -dE/dV, see physics/scaling.py, of every proton walker and step.

    Args:
        state: networks and walkers.
    """

    def __init__(self, state: VariationalState) -> None:
        self.state = state
        self._steps: list[Tensor] = []  # (W,) each

    def add(self, batch: Batch, sample: Sample) -> None:
        """Count a batch. One electron walker of each proton walker shows no covariance."""
        if batch.electrons.shape[1] < 2:
            return
        wavefunction, num_atoms = self.state.wavefunction, self.state.system.num_atoms
        given = batch.protons, batch.electrons, batch.states, sample.electronic.total
        self._steps.append(virial_excess(wavefunction, *given, num_atoms).double())

    def result(
        self, stratum: Tensor, gather: Callable[[Tensor], Tensor], starts: Sequence[int]
    ) -> list[Estimate | None]:
        """In GPa at each state point; None where it is not known.

        Args:
            stratum: of all proton walkers of all processes.  # (W,)
            gather: concatenates the rows of all processes.
            starts: the first step that counts at each state point.
        """
        strata = self.state.strata
        if not self._steps:
            return [None] * strata.num_states
        series, found = gather(torch.stack(self._steps, dim=1)).cpu(), list[Estimate | None]()  # (W, steps)
        for number, start in enumerate(starts):
            own = strata.state_index(stratum) == number
            found.append(estimate(series[own, start:].T, stratum[own], strata.weights(stratum[own])))
        return found
