"""The terms of F as a torchmetrics Metric."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_vfe.physics.statistics import Estimate, estimate


class FreeEnergyMetric(Metric):
    """Collects all reported terms of every walker and step; `compute` gives each with its error.

    The errors come from the walkers' means over time and from blocking over time (physics/statistics.py), never from
    the number of electron samples. Twists are strata: a fixed grid of twists is not a random variable.
    """

    full_state_update = False
    samples: list[Tensor]
    diagnostics: list[Tensor]
    strata: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Processes are put side by side along the first dimension, the walkers.
        self.add_state("samples", default=[], dist_reduce_fx="cat")  # (W, 1, terms) each
        self.add_state("strata", default=[], dist_reduce_fx="cat")  # (W,)
        self.add_state("diagnostics", default=[], dist_reduce_fx=None)  # equal on all processes
        self.names: list[str] = []
        self.diagnostic_names: list[str] = []

    def update(self, terms: dict[str, Tensor], diagnostics: dict[str, Tensor], strata: Tensor) -> None:
        """Add one step: terms (W,) of the independent walkers, numbers that describe the step, twists (W,)."""
        self.names, self.diagnostic_names = list(terms), list(diagnostics)
        step = torch.stack(list(terms.values()), dim=-1).unsqueeze(1)
        # One tensor, so that torchmetrics concatenates the walkers of the processes and not their steps.
        self.samples = [torch.cat([*self.samples, step], dim=1)]
        self.strata = [strata]
        self.diagnostics.append(torch.stack([value.to(step) for value in diagnostics.values()]))

    def series(self) -> dict[str, Tensor]:
        """Every term over time, (steps, W)."""
        samples = self.samples[0] if isinstance(self.samples, list) else self.samples
        return {name: samples[..., i].T for i, name in enumerate(self.names)}

    def compute(self) -> dict[str, Estimate]:
        """Value and error of every term.

        Raises:
            FloatingPointError: samples that are not finite; to leave them out would bias every mean.
        """
        strata, terms = self.strata[0] if isinstance(self.strata, list) else self.strata, self.series()
        for name, series in terms.items():
            broken = int((~torch.isfinite(series)).sum())
            if broken:
                raise FloatingPointError(
                    f"{name} is not finite for {broken} of {series.numel()} samples: the networks, or a chain, broke "
                    "down there; measure an earlier checkpoint of the run with ckpt_path=..."
                )
        return {name: estimate(series, strata) for name, series in terms.items()}

    def mean_diagnostics(self) -> dict[str, float]:
        """Each diagnostic number, averaged over the steps, and the error of the electrons' drift."""
        series = torch.stack(list(self.diagnostics))  # (steps, numbers)
        means = dict(zip(self.diagnostic_names, series.mean(0).tolist(), strict=True))
        drift = series[:, self.diagnostic_names.index("electron_drift")]
        return means | {"electron_drift_error": estimate(drift.unsqueeze(1)).error}


def with_base_error(estimates: dict[str, Estimate], base_error: float, kT: float) -> dict[str, Estimate]:
    """The estimates with the error of ln Z_ML in those that contain it: it is the same for all samples, so that no
    scatter of theirs shows it, and independent of them.

    Args:
        estimates: per atom.
        base_error: standard error of -kT ln Z_ML per atom in Ha; 0 for the uniform base.
        kT: in Ha; S = (E - F)/kT inherits the error of F.
    """
    added = {
        "free_energy_per_atom": base_error,
        "base_free_energy_per_atom": base_error,
        "entropy_per_atom": base_error / kT,
    }
    return {
        name: found._replace(error=math.hypot(found.error, added[name])) if name in added else found
        for name, found in estimates.items()
    }
