"""Errors of a potential on labels, as torchmetrics."""

from __future__ import annotations

from torch import nn
from torchmetrics import MeanAbsoluteError, MeanSquaredError, MetricCollection

from lightning_vfe.physics.units import HARTREE_PER_BOHR3_TO_GPA
from lightning_vfe.training.potential.loss import Prediction
from lightning_vfe.training.supervised.labelled import LabelledSet

QUANTITIES = ("energy_{}_per_atom", "force_{}", "pressure_{}_gpa")
"""Ha per atom, Ha/bohr per component, GPa; {} is mae or rmse."""


class PotentialErrors(nn.Module):
    """Mean absolute and root mean square errors of energies per atom, force components and pressures.

    Every process measures all configurations, so that the numbers of one are those of all.
    """

    def __init__(self) -> None:
        super().__init__()
        self._parts = [
            MetricCollection(
                {
                    name.format("mae"): MeanAbsoluteError(sync_on_compute=False),
                    name.format("rmse"): MeanSquaredError(squared=False, sync_on_compute=False),
                }
            )
            for name in QUANTITIES
        ]
        self.parts = nn.ModuleList(self._parts)
        self._seen = [False] * len(QUANTITIES)

    def reset(self) -> None:
        """Forget all errors."""
        for part in self._parts:
            part.reset()
        self._seen = [False] * len(QUANTITIES)

    def update(self, predicted: Prediction, labels: LabelledSet) -> None:
        """Add the errors of a batch."""
        per_atom = 1.0 / labels.cell.num_atoms
        pairs = (
            (predicted.energy, labels.energy, per_atom),
            (predicted.forces, labels.forces, 1.0),
            (predicted.pressure, labels.pressure, HARTREE_PER_BOHR3_TO_GPA),
        )
        for i, (found, target, unit) in enumerate(pairs):
            if found is not None and target is not None:
                self._parts[i].update(found.detach().flatten() * unit, target.flatten() * unit)
                self._seen[i] = True

    def compute(self) -> dict[str, float]:
        """Errors of all quantities that had labels."""
        found: dict[str, float] = {}
        for seen, part in zip(self._seen, self._parts, strict=True):
            if seen:
                found |= {name: float(value) for name, value in part.compute().items()}
        return found
