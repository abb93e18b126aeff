"""The terms of F as a torchmetrics Metric."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_vfe.physics.correlation import correlation_of_means
from lightning_vfe.physics.equilibration import block_length, equilibration_steps
from lightning_vfe.physics.statistics import Estimate, estimate, largest_share
from lightning_vfe.physics.strata import Strata

CORRELATED = ("free_energy_per_atom", "energy_per_atom", "pressure_gpa")
"""Terms whose correlations are measured: an equation of state is fitted to them together."""


class FreeEnergyMetric(Metric):
    """Collects all reported terms of every walker and step; `compute` gives each with its error at each state point.

    The errors come from the walkers' means over time and from blocking over time (physics/statistics.py), never from
    the number of electron samples. State points and twists are strata: they are chosen, and no random variables.

    Steps at the start that are not equilibrated (physics/equilibration.py) do not count, the same for all terms of a
    state, so that sums of terms stay sums; at most half of the steps.

    Args:
        strata: of the run.

    Attributes:
        unequilibrated: steps at the start of each state that `compute` has found not to be equilibrated, those of the
            slowest term; all steps where the chains drift to the end.
        largest_shares: of the variance of F, what the sample makes that deviates most, at each state.
        correlations: of the means of CORRELATED that `compute` has found at each state, in this order.
    """

    full_state_update = False
    samples: list[Tensor]
    stratum: list[Tensor]
    walkers: list[Tensor]
    walker_stratum: list[Tensor]
    common: list[Tensor]

    def __init__(self, strata: Strata, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.strata = strata
        # Processes are put side by side along the first dimension, the walkers.
        self.add_state("samples", default=[], dist_reduce_fx="cat")  # (W, 1, terms) each
        self.add_state("stratum", default=[], dist_reduce_fx="cat")  # (W,)
        self.add_state("walkers", default=[], dist_reduce_fx="cat")  # (W, 1, numbers) each
        self.add_state("walker_stratum", default=[], dist_reduce_fx="cat")  # (W,)
        self.add_state("common", default=[], dist_reduce_fx=None)  # equal on all processes
        self.names: list[str] = []
        self.walker_names: list[str] = []
        self.common_names: list[str] = []
        self.unequilibrated: list[int] = []
        self.largest_shares: list[float] = []
        self.correlations: list[list[list[float]]] = []

    def update(
        self,
        terms: dict[str, Tensor],
        stratum: Tensor,
        of_walkers: dict[str, Tensor],
        walker_stratum: Tensor,
        common: dict[str, Tensor],
    ) -> None:
        """Add one step.

        Args:
            terms: of the independent samples.  # (samples,) each
            stratum: of these samples.  # (samples,)
            of_walkers: diagnostics of each proton walker.  # (W,) each
            walker_stratum: # (W,)
            common: numbers that describe the whole step.  # () each
        """
        self.names, self.walker_names, self.common_names = list(terms), list(of_walkers), list(common)
        # One tensor, so that torchmetrics concatenates the walkers of the processes and not their steps.
        step = torch.stack(list(terms.values()), dim=-1).unsqueeze(1)
        self.samples = [torch.cat([*self.samples, step], dim=1)]
        self.stratum = [stratum]
        numbers = torch.stack(list(of_walkers.values()), dim=-1).unsqueeze(1)
        self.walkers = [torch.cat([*self.walkers, numbers], dim=1)]
        self.walker_stratum = [walker_stratum]
        self.common.append(torch.stack([value.to(step) for value in common.values()]))

    def series(self) -> dict[str, Tensor]:
        """Every term over time, (steps, samples)."""
        samples = _whole(self.samples)
        return {name: samples[..., i].T for i, name in enumerate(self.names)}

    def compute(self) -> list[dict[str, Estimate]]:
        """Value and error of every term, for each state point.

        Raises:
            FloatingPointError: samples that are not finite; to leave them out would bias every mean.
        """
        stratum, terms = _whole(self.stratum), self.series()
        for name, series in terms.items():
            broken = int((~torch.isfinite(series)).sum())
            if broken:
                raise FloatingPointError(
                    f"{name} is not finite for {broken} of {series.numel()} samples: the networks, or a chain, broke "
                    "down there; measure an earlier checkpoint of the run with ckpt_path=..."
                )
        self.unequilibrated, self.largest_shares, self.correlations, found = [], [], [], []
        for number in range(self.strata.num_states):
            own = self.strata.state_index(stratum) == number
            chains = stratum[own].cpu()
            arguments = chains, self.strata.weights(chains)
            series_of = {name: series[:, own].cpu() for name, series in terms.items()}
            slowest = max(equilibration_steps(each, *arguments, len(series_of)) for each in series_of.values())
            start = start_of_average(slowest, next(iter(series_of.values())).shape[0])
            self.unequilibrated.append(slowest)
            found.append({name: estimate(each[start:], *arguments) for name, each in series_of.items()})
            self.largest_shares.append(largest_share(series_of["free_energy_per_atom"][start:], chains))
            self.correlations.append(self._correlations(found[-1], series_of, start, arguments))
        return found

    @staticmethod
    def _correlations(
        found: dict[str, Estimate], series: dict[str, Tensor], start: int, arguments: tuple[Tensor, Tensor]
    ) -> list[list[float]]:
        """Of the means of CORRELATED, from blocks of twice the autocorrelation time of the slowest of them."""
        samples = [series[name][start:] for name in CORRELATED if name in series]
        length = max((found[name].autocorrelation_time for name in CORRELATED if name in found), default=1.0)
        if len(samples) < len(CORRELATED):
            return []
        matrix: list[list[float]] = correlation_of_means(samples, math.ceil(2.0 * length), *arguments).tolist()
        return matrix

    def common_diagnostics(self) -> dict[str, float]:
        """Each diagnostic number of the whole run, averaged over the steps, and the error of the electrons' drift."""
        series = torch.stack(list(self.common))  # (steps, numbers)
        means = dict(zip(self.common_names, series.mean(0).tolist(), strict=True))
        drift = series[:, self.common_names.index("electron_drift")]
        return means | {"electron_drift_error": estimate(drift.unsqueeze(1)).error}

    def state_diagnostics(self, gather: Callable[[Tensor], Tensor]) -> list[dict[str, float]]:
        """Each diagnostic number of the walkers, averaged over steps and walkers, for each state point.

        Args:
            gather: concatenates the rows of all processes, which torchmetrics does in `compute` alone.
        """
        means, stratum = gather(_whole(self.walkers).mean(1)), gather(_whole(self.walker_stratum))  # (W, numbers)
        weight = self.strata.weights(stratum).to(means)
        found = []
        for number in range(self.strata.num_states):
            own = self.strata.state_index(stratum) == number
            share = weight[own] / weight[own].sum()
            found.append(dict(zip(self.walker_names, (share @ means[own]).tolist(), strict=True)))
        return found


def _whole(state: list[Tensor] | Tensor) -> Tensor:
    """A state, which torchmetrics turns from a list into a tensor when it brings the processes together."""
    return state[0] if isinstance(state, list) else state


def start_of_average(unequilibrated: int, num_steps: int) -> int:
    """The first step that counts: at most half of the steps are left out, in whole blocks."""
    block = block_length(num_steps)
    return min(unequilibrated, num_steps // 2 // block * block)


def with_base_error(estimates: dict[str, Estimate], base_error: float, kT: float) -> dict[str, Estimate]:
    """The estimates with the error of ln Z_ML in those that contain it.

    It is the same for all samples, so that no scatter of theirs shows it, and independent of them.

    Args:
        estimates: per atom.
        base_error: standard error of -kT ln Z_ML per atom in Ha; 0 for the uniform base.
        kT: in Ha; S = (E - F)/kT inherits the error of F.
    """
    added = base_errors(base_error, kT)
    return {
        name: found._replace(error=math.hypot(found.error, added[name])) if name in added else found
        for name, found in estimates.items()
    }


def base_errors(base_error: float, kT: float) -> dict[str, float]:
    """What the error of -kT ln Z_ML per atom in Ha contributes to the error of each term that contains it."""
    return {
        "free_energy_per_atom": base_error,
        "base_free_energy_per_atom": base_error,
        "entropy_per_atom": base_error / kT,
    }


def of_reached_protons(
    estimates: dict[str, Estimate], fraction: float, kT: float, num_atoms: int
) -> dict[str, Estimate]:
    r"""F and S where the map reaches only a part of the base density: a fraction f of its protons z has no x.

    The protons x that are found have the density q(x) = p(x) / (1 - f), zero where they are never found, so that

        F[q] = <E + kT ln p>_q - kT ln(1 - f).

    It is a bound of the free energy like that of any other density. The same holds where the map folds and one of
    several x is taken: q(x) = p(x) for those that are taken. The shift is added to the error, too, because f is known
    from few failures.

    Args:
        estimates: per atom, averages over q.
        fraction: f, from 0 to below 1.
        kT: in Ha.
        num_atoms: N.
    """
    shifts = unreached_shifts(fraction, kT, num_atoms)
    return {
        name: found._replace(value=found.value + shifts[name], error=math.hypot(found.error, shifts[name]))
        if name in shifts
        else found
        for name, found in estimates.items()
    }


def unreached_shifts(fraction: float, kT: float, num_atoms: int) -> dict[str, float]:
    """By how much F in Ha and S in k_B per atom change where a fraction of the base protons is not reached."""
    lost = -math.log1p(-fraction) / num_atoms  # of S/k_B
    return {"free_energy_per_atom": kT * lost, "entropy_per_atom": -lost}
