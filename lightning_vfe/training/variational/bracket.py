"""Bound and estimate of the exact free energy, from the walkers of `test` and the curve of the training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_vfe.analysis.files import state_columns
from lightning_vfe.analysis.folder import RunFolder
from lightning_vfe.analysis.psi_gap import FREE_ENERGY, OF_PSI, VarianceLine, after_the_flow, fit_variance_line
from lightning_vfe.analysis.states import State
from lightning_vfe.errors import one_line
from lightning_vfe.physics.flow_gap import FlowGap, flow_gap
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.statistics import Estimate, estimate
from lightning_vfe.state.batch import Sample
from lightning_vfe.state.variational_state import VariationalState


def energy_noise(total: Tensor) -> Tensor:
    """Variance of the mean of Re E_loc over the B electron walkers of each proton walker, Ha^2.  # (W, B) -> (W,)"""
    energy, count = total.real, total.shape[1]
    return (energy - energy.mean(1, keepdim=True)).square().sum(1) / max(count - 1, 1) / count


def noise_skew(total: Tensor) -> Tensor:
    """Third cumulant of the mean of Re E_loc over the B electron walkers, Ha^3, nan below three.  # (W, B) -> (W,)

    B / ((B - 1)(B - 2)) sum (E_b - <E>)^3 has no bias for the third cumulant of one walker; that of the mean is 1/B^2
    of it.
    """
    energy, count = total.real, total.shape[1]
    if count < 3:
        return torch.full_like(energy[:, 0], torch.nan)
    return (energy - energy.mean(1, keepdim=True)).pow(3).sum(1) / ((count - 1) * (count - 2) * count)


def walker_free_energy_of_psi(
    free_energy: Tensor, noise: Tensor, kT: Tensor, num_atoms: int, stratum: Tensor, num_strata: int
) -> Tensor:
    """F - kT/2 Var(A) / N of a single step, as a number of each walker whose mean is that: see physics/flow_gap.py.

    Args:
        free_energy: F of each proton walker, per atom in Ha.  # (W,)
        noise: `energy_noise` of each.  # (W,)
        kT: of each, in Ha.  # (W,)
        num_atoms: N.
        stratum: of each; every stratum has at least two.  # (W,)
        num_strata: of the run.
    """
    member = (stratum.unsqueeze(1) == torch.arange(num_strata, device=stratum.device)).to(free_energy)  # (W, strata)
    count = member.sum(0)
    mean, size = member @ (free_energy @ member / count), member @ count
    squares = (free_energy - mean).square() * size / (size - 1.0) - noise / num_atoms**2
    return free_energy - squares * num_atoms / (2.0 * kT)


OF_EACH_TWIST = " of each twist alone, which bounds the gap from above"
"""What is said of the gap of the flow with several twists."""


class BracketSeries:
    """Collects what the gaps need of every proton walker and step.

    Args:
        state: networks and walkers.
    """

    def __init__(self, state: VariationalState) -> None:
        self.state = state
        self._steps: list[Tensor] = []  # (W, 5) each

    def add(self, sample: Sample) -> None:
        """Count a batch."""
        total = sample.electronic.total  # (W, B)
        spread = (total - total.mean(1, keepdim=True)).abs().square().sum(1) / max(total.shape[1] - 1, 1)
        free = sample.terms["free_energy_per_atom"].view(len(total), -1).mean(1)
        numbers = [free, energy_noise(total), spread, total.real.mean(1), noise_skew(total)]
        self._steps.append(torch.stack(numbers, dim=-1).double())

    def result(self, stratum: Tensor, gather: Callable[[Tensor], Tensor], starts: Sequence[int]) -> list[Gaps]:
        """Both gaps at each state point, as far as the walkers know them.

        Args:
            stratum: of all proton walkers of all processes.  # (W,)
            gather: concatenates the rows of all processes.
            starts: the first step that counts at each state point.
        """
        series = gather(torch.stack(self._steps, dim=1)).cpu()  # (W, steps, 5)
        strata, num_atoms, count = (
            self.state.strata,
            self.state.system.num_atoms,
            self.state.counts.num_electron_walkers,
        )
        found = []
        for number, (point, start) in enumerate(zip(strata.points, starts, strict=True)):
            own = strata.state_index(stratum) == number
            free, noise, spread, energy, skew = series[own, start:].transpose(0, 1).unbind(-1)  # (steps, walkers) each
            gap, labels = None, stratum[own]
            weights = strata.weights(labels)
            if not self.state.is_fixed:
                gap = flow_gap(free, noise, count, point.kT, num_atoms, labels, weights, skew)
            variance, mean = estimate(spread, labels, weights), estimate(energy, labels, weights).value
            found.append(Gaps(point, num_atoms, count, gap, variance, mean, num_twists=len(strata.twists)))
        return found


@dataclass
class Gaps:
    """How far F of one state point lies above the exact one, and why.

    Attributes:
        point: density and temperature.
        num_atoms: N.
        num_electron_walkers: B.
        flow: the gap of p(x); None for fixed protons.
        variance: of E_loc, whole cell, Ha^2.
        energy: mean of E_loc, whole cell, Ha.
        line: E against the variance along the training; None where there is none.
        line_reason: why there is none.
        of_psi: the exact free energy of E_psi, with all that enters the error of F; None where it is not known.
        num_twists: computed twists, each with a gap of its own.
    """

    point: StatePoint
    num_atoms: int
    num_electron_walkers: int
    flow: FlowGap | None
    variance: Estimate
    energy: float
    line: VarianceLine | None = None
    line_reason: str = "the training is not known"
    of_psi: Estimate | None = None
    num_twists: int = 1

    def fit_line(self, run_dir: Path, last_step: int, several: bool) -> None:
        """Fit the line to metrics.csv of a run folder, if it can be fitted.

        Args:
            run_dir: the run folder.
            last_step: training steps of the measured parameters.
            several: whether the run has several state points.
        """
        energy = "energy_per_atom" if self.flow is None else FREE_ENERGY
        file = run_dir / "metrics.csv"
        try:
            if not file.is_file():
                raise ValueError("the run folder holds no metrics.csv of the training")
            metrics = RunFolder(run_dir).metrics
            if several:
                metrics = state_columns(metrics, State(self.point.rs, self.point.temperature_kelvin), file)
            metrics = metrics[metrics.index < last_step]
            if self.flow is not None:
                if OF_PSI not in metrics:
                    raise ValueError(
                        f"{file} has no column {OF_PSI}; fit writes it if each twist has two proton walkers or more"
                    )
                metrics = after_the_flow(metrics, self.point.kT)
            self.line = fit_variance_line(metrics, self.num_atoms, energy)
        except (ValueError, OSError) as error:
            self.line_reason = one_line(error)

    @property
    def psi(self) -> tuple[float, float] | None:
        """Slope times variance per atom, the gap of psi in Ha, with its error; None without a line."""
        if self.line is None:
            return None
        # metrics.csv has the mean square deviation from the mean of the same B samples
        as_logged = (self.num_electron_walkers - 1) / self.num_electron_walkers / self.num_atoms
        variance, error = self.variance.value * as_logged, self.variance.error * as_logged
        return self.line.slope * variance, math.hypot(self.line.error * variance, self.line.slope * error)

    @property
    def v_score(self) -> tuple[float, float]:
        """N Var(E_loc) / E^2 with its error; nan for one electron walker, which shows no variance."""
        if self.num_electron_walkers < 2:
            return math.nan, math.nan
        scale = self.num_atoms / self.energy**2
        return scale * self.variance.value, scale * self.variance.error

    def as_dict(self, upper: Estimate | None) -> dict[str, Any]:
        """What summary.json holds: value, error, unit and note of each part, and the numbers behind them.

        Args:
            upper: F with all that enters its error; None where it is refused.
        """
        flow, of_psi, psi = self.flow, self.of_psi, self.psi
        if upper is None:
            of_psi, flow_note = None, "F is not reported"
        elif flow is None:
            of_psi, flow_note = upper, "the protons are fixed"
        else:
            flow_note = flow.note(OF_EACH_TWIST if self.num_twists > 1 else "")
        gap = (0.0, 0.0) if flow is None else _pair(flow.gap if of_psi is not None else None)
        exact, missing = (math.nan, math.nan), []
        if of_psi is not None and psi is not None:
            exact = of_psi.value - psi[0], math.hypot(of_psi.error, psi[1])
        else:
            missing = [name for name, part in (("the flow", of_psi), ("psi", psi)) if part is None]
        unknown = f"the gap of {' and that of '.join(missing)} is not known" if missing else ""
        return {
            "upper_bound_per_atom": _entry(_pair(upper), "Ha/atom", flow_note if upper is None else ""),
            "flow_gap_per_atom": _entry(gap, "Ha/atom", flow_note),
            "free_energy_of_psi_per_atom": _entry(_pair(of_psi), "Ha/atom", flow_note if of_psi is None else ""),
            "psi_gap_per_atom": _entry(psi or (math.nan, math.nan), "Ha/atom", self._line_note()),
            "exact_free_energy_per_atom": _entry(exact, "Ha/atom", unknown),
            "v_score": _entry(self.v_score, "", self._v_score_note()),
            "flow": None if flow is None else _flow_numbers(flow),
            "line": None if self.line is None else dict(vars(self.line)),
        }

    def _v_score_note(self) -> str:
        if self.num_electron_walkers < 2:
            return "one electron walker for each proton walker shows no variance of E_loc"
        return "N Var(E_loc) / E^2, with E = 0 for a uniform distribution of all charges"

    def _line_note(self) -> str:
        if self.line is None:
            return self.line_reason
        name = "E" if self.flow is None else "F"
        return (
            f"{name} against the variance of E_loc from step {self.line.first_step} on, "
            f"chi^2 {self.line.chi2:.2f} per degree of freedom"
        )


def _pair(found: Estimate | None) -> tuple[float, float]:
    return (math.nan, math.nan) if found is None else (found.value, found.error)


def _entry(pair: tuple[float, float], unit: str, note: str) -> dict[str, Any]:
    value, error = (float(number) if math.isfinite(number) else None for number in pair)
    return {"value": value, "error": error, "unit": unit, "note": note}


def _flow_numbers(flow: FlowGap) -> dict[str, Any]:
    """Numbers behind the gap of the flow, null where they are not known."""
    numbers = {"variance": flow.variance, "noise": flow.noise, "effective_sample_size": flow.effective_sample_size}
    return {name: float(value) if math.isfinite(value) else None for name, value in numbers.items()}
