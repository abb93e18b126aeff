"""Whether chains keep the kind of structure that they started with: molecules or atoms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lightning_vfe.analysis.terms import value_in_brackets
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.static_structure import BOND_CUTOFF, chance_fraction
from lightning_vfe.physics.statistics import Estimate, estimate
from lightning_vfe.physics.strata import Strata
from lightning_vfe.physics.structures import STARTS
from lightning_vfe.training.variational.diagnostics import MAX_R_HAT, start_difference_limit

TEMPERING = "temper the base with sampler.tempering=[1.0,1.5,2.2]"


@dataclass(frozen=True)
class Bonds:
    """The molecular fraction of the chains of one state point.

    Attributes:
        r_hat: split R-hat of the molecular fraction.
        by_start: the molecular fraction of the walkers with each start; empty where starts are not mixed.
    """

    r_hat: float
    by_start: Mapping[str, Estimate] = field(default_factory=dict)

    def diagnostics(self) -> dict[str, float]:
        """R-hat, and the difference of the two starts with its error."""
        found = {"molecular_r_hat": self.r_hat}
        if self.by_start:
            first, second = self.by_start.values()
            found["start_difference"] = first.value - second.value
            found["start_difference_error"] = math.hypot(first.error, second.error)
        return found

    def reasons(self, steps_key: str, is_direct: bool) -> list[str]:
        """Why the averages are not to be trusted.

        Args:
            steps_key: setting of the number of measured steps.
            is_direct: whether chains move base protons, which tempering helps.
        """
        keys = f"sampler.num_proton_steps, datamodule.equilibration_steps and {steps_key}"
        values, remedy = self.diagnostics(), f"raise {keys}" + (f", or {TEMPERING}" if is_direct else "")
        if self.by_start and abs(values["start_difference"]) > start_difference_limit(values):
            first, second = (value_in_brackets(each.value, each.error) for each in self.by_start.values())
            return [
                f"the molecular fraction of walkers that started as molecules is {first}, of the others {second}: "
                f"chains keep their start; {remedy}"
            ]
        if self.r_hat > MAX_R_HAT:
            return [
                f"R-hat of the molecular fraction = {self.r_hat:.3f} is above {MAX_R_HAT}: "
                f"chains keep their bonds; {remedy}"
            ]
        return []

    def as_dict(self) -> dict[str, Any]:
        """The entry `molecular_fraction_by_start` of summary.json; nothing where starts are not mixed."""
        if not self.by_start:
            return {}
        found = {name: {"value": each.value, "error": each.error} for name, each in self.by_start.items()}
        return {"molecular_fraction_by_start": found}


def bonds_of_states(
    strata: Strata,
    fraction: Tensor,
    stratum: Tensor,
    start: Tensor | None,
    first_steps: Sequence[int],
    gather: Callable[[Tensor], Tensor],
) -> list[Bonds | None]:
    """The bonds at each state point; None where starts are not mixed and there are no molecules.

    There are molecules where the fraction is above that of independent points, and the longest bond is below rs: at
    higher densities all neighbours are that close.

    Args:
        strata: of the run.
        fraction: molecular fraction of each proton walker of this process.  # (steps, W)
        stratum: of the walkers of all processes.  # (W,)
        start: number of each walker's start, of this process; None where starts are not mixed.  # (W,)
        first_steps: the first step that counts, of each state point.
        gather: concatenates the rows of all processes.
    """
    series = gather(fraction.T).T.double().cpu()
    starts = None if start is None else gather(start).cpu()
    found = []
    for number, (point, first) in enumerate(zip(strata.points, first_steps, strict=True)):
        own = strata.state_index(stratum) == number
        of_starts = None if starts is None else starts[own]
        found.append(_bonds(point, series[first:, own], stratum[own], strata.weights(stratum[own]), of_starts))
    return found


def _bonds(point: StatePoint, series: Tensor, stratum: Tensor, weights: Tensor, start: Tensor | None) -> Bonds | None:
    whole = estimate(series, stratum, weights)
    if start is None:
        has_molecules = point.rs > BOND_CUTOFF and whole.value > chance_fraction(point.rs)
        return Bonds(whole.r_hat) if has_molecules else None
    # each start has the same twists, so that these need no strata
    halves = [(name, start == number) for number, name in enumerate(STARTS)]
    by_start = {name: estimate(series[:, own], weights=weights[own]) for name, own in halves}
    return Bonds(whole.r_hat, by_start)
