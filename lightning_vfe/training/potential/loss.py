"""The loss of a potential on labelled configurations, written once for every way to fit one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_vfe.errors import SettingError
from lightning_vfe.models.potential.chunked import chunked_energy
from lightning_vfe.models.potential.delta import DeltaPotential
from lightning_vfe.models.potential.potential import Potential
from lightning_vfe.models.potential.schnet import SchNetPotential
from lightning_vfe.training.supervised.labelled import LabelledSet


class Prediction(NamedTuple):
    """What a potential gives for a set, for all that the set has labels of."""

    energy: Tensor  # (C,) Ha
    forces: Tensor | None  # (C, N, 3) Ha/bohr
    pressure: Tensor | None  # (C,) Ha/bohr^3


def predict(potential: Potential, labels: LabelledSet, create_graph: bool = False) -> Prediction:
    """Energies, and forces and pressures where there are labels of them, from one backward pass.

    F = -dE/dz and P = -1/(3V) dE/ds with all lengths multiplied by s.

    Args:
        potential: gives E(z).
        labels: C configurations.
        create_graph: keep the results differentiable with respect to the parameters.
    """
    z = labels.positions.detach().requires_grad_(labels.forces is not None)
    dilation = None if labels.pressure is None else torch.ones_like(labels.energy).requires_grad_()
    variables = [variable for variable in (z, dilation) if variable is not None and variable.requires_grad]
    with torch.set_grad_enabled(create_graph or bool(variables)):
        energy = potential.energy(z, labels.cell, dilation)
        slopes = list(torch.autograd.grad(energy.sum(), variables, create_graph=create_graph)) if variables else []
    forces = -slopes.pop(0) if labels.forces is not None else None
    pressure = slopes.pop(0) / (-3.0 * labels.cell.volume) if dilation is not None else None
    return Prediction(energy if create_graph else energy.detach(), forces, pressure)


class PotentialLoss(nn.Module):
    r"""Squared errors in units of the labels' own spread, so that weights of one mean equal relative importance.

        loss = w_E <w_c (dE_c / N)^2> / s_E^2 + w_F <w_ci dF_ci^2> / s_F^2 + w_P <dP_c^2> / s_P^2

    s_E is the spread of the energies per atom, s_F the root mean square of the force components, s_P the spread of the
    pressures, all of the training set (`set_scales`). The weights w_c and w_ci come from the labels' errors.

    Args:
        energy_weight: w_E.
        force_weight: w_F, where there are forces.
        pressure_weight: w_P, where there are pressures.

    Raises:
        ValueError: a weight is negative, or that of the energies is zero.
    """

    scales: Tensor

    def __init__(self, energy_weight: float = 1.0, force_weight: float = 1.0, pressure_weight: float = 0.1) -> None:
        super().__init__()
        weights = {"energy_weight": energy_weight, "force_weight": force_weight, "pressure_weight": pressure_weight}
        for name, weight in weights.items():
            if not weight >= 0 or (name == "energy_weight" and weight == 0):
                raise SettingError(name, weight, "must be positive (that of forces, pressures may be 0)")
        self.weights = tuple(weights.values())
        self.register_buffer("scales", torch.ones(3))

    def set_scales(self, sets: Sequence[LabelledSet], baseline: Sequence[Tensor] | None = None) -> None:
        """Take s_E, s_F, s_P from the training sets.

        Args:
            sets: the training sets.
            baseline: energies of a baseline that the fit corrects, (C,) in Ha of each set.
        """
        targets = [part.energy if baseline is None else part.energy - baseline[i] for i, part in enumerate(sets)]
        energies = [target / part.cell.num_atoms for target, part in zip(targets, sets, strict=True)]
        forces = [part.forces.flatten() for part in sets if part.forces is not None]
        pressures = [part.pressure for part in sets if part.pressure is not None]
        spreads = [_spread(energies), torch.cat(forces).square().mean().sqrt() if forces else None, _spread(pressures)]
        for i, spread in enumerate(spreads):
            # a single configuration has no spread
            self.scales[i] = 1.0 if spread is None or not spread > 0 else spread

    def forward(self, predicted: Prediction, labels: LabelledSet) -> Tensor:
        """The loss of a batch."""
        error = (predicted.energy - labels.energy) / labels.cell.num_atoms
        loss = self.weights[0] * (labels.weights * error.square()).mean() / self.scales[0] ** 2
        if predicted.forces is not None and self.weights[1] > 0:
            assert labels.forces is not None
            squares = (predicted.forces - labels.forces).square()
            squares = squares if labels.force_weights is None else labels.force_weights * squares
            loss = loss + self.weights[1] * squares.mean() / self.scales[1] ** 2
        if predicted.pressure is not None and self.weights[2] > 0:
            assert labels.pressure is not None
            loss = loss + self.weights[2] * (predicted.pressure - labels.pressure).square().mean() / self.scales[2] ** 2
        return loss


def _spread(groups: Sequence[Tensor]) -> Tensor | None:
    """Standard deviation around the mean of each group, over all of them."""
    centred = [group - group.mean() for group in groups]
    return torch.cat(centred).square().mean().sqrt() if centred else None


def initialise_scales(potential: Potential, sets: Sequence[LabelledSet], loss: PotentialLoss) -> None:
    """Prepare a fit: scales of the loss, and e_0 and e_1 of the SchNet that is trained, both from the training sets.

    e_0 is the mean over all configurations of the energy per atom, e_1 its spread, after the repulsion is subtracted
    and, for a DeltaPotential, the baseline.
    """
    baseline, trained = None, potential
    if isinstance(potential, DeltaPotential):
        baseline, trained = _energies(potential.baseline, sets), potential.correction
    loss.set_scales(sets, baseline)
    if not isinstance(trained, SchNetPotential):
        return
    rest = []
    for i, (part, repulsion) in enumerate(zip(sets, _energies(trained.repulsion, sets), strict=True)):
        known = repulsion + (0.0 if baseline is None else baseline[i])
        rest.append((part.energy - known) / part.cell.num_atoms)
    spread = _spread(rest)
    assert spread is not None
    trained.set_scale(float(torch.cat(rest).mean()), float(spread) if spread > 0 else 1.0)


@torch.no_grad()
def _energies(potential: Potential, sets: Sequence[LabelledSet]) -> list[Tensor]:
    """Energies of each set. # (C,) each"""
    return [chunked_energy(potential, labels.cell)(labels.positions) for labels in sets]
