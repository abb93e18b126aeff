"""Active learning: the configurations at which a committee of potentials disagrees most."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_vfe.errors import SettingError
from lightning_vfe.models.potential.potential import Potential
from lightning_vfe.physics.cell import PeriodicCell

TrainPotential = Callable[[str, int], Potential]
"""Fits a potential: (path of the database, seed of its parameters and split) -> potential."""


@dataclass(frozen=True)
class CommitteeSettings:
    """How active rounds choose.

    Attributes:
        size: potentials in the committee.
        candidates: configurations sampled for each one that is taken.
        random_share: part of the configurations of a round that is taken at random, in [0, 1].

    Raises:
        ValueError: a setting is out of its range.
    """

    size: int = 3
    candidates: int = 8
    random_share: float = 0.25

    def __post_init__(self) -> None:
        if self.size < 2:
            raise SettingError("size", self.size, "must be at least 2: one potential cannot disagree")
        if self.candidates < 1:
            raise SettingError("candidates", self.candidates, "must be at least 1")
        if not 0 <= self.random_share <= 1:
            raise SettingError("random_share", self.random_share, "must lie in [0, 1]")


class Committee:
    """Potentials that differ in the seed of their training.

    Args:
        members: at least two.
        cell: the cell that they are asked about.
    """

    def __init__(self, members: Sequence[Potential], cell: PeriodicCell) -> None:
        self.members = list(members)
        self.cell = cell

    def energy(self, positions: Tensor) -> Tensor:
        """Mean energy of the members in Ha, (..., N, 3) -> (...)."""
        return torch.stack([member.energy(positions, self.cell) for member in self.members]).mean(0)

    def disagreement(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Spread of the members at every configuration.

        Args:
            positions: in bohr.  # (C, N, 3)

        Returns:
            Standard deviation of the energy per atom in Ha; largest, over the atoms, of the standard deviation of the
            force in Ha/bohr, the root of the sum over its components.  # (C,) each
        """
        found = (member.energy_and_forces(positions, self.cell) for member in self.members)
        energies, forces = (torch.stack(column) for column in zip(*found, strict=True))
        return energies.std(0) / self.cell.num_atoms, forces.var(0).sum(-1).sqrt().amax(-1)

    def select(self, positions: Tensor, count: int, settings: CommitteeSettings, seed: int) -> Tensor:
        """Indices of `count` configurations: those of largest disagreement, and a random share of the others.

        Energy and force disagreement are compared as multiples of their medians; the larger one counts.

        Args:
            positions: candidates in bohr.  # (C, N, 3)
            count: how many, at most C.
            settings: the random share.
            seed: of the random share.

        Returns:
            int64 indices.  # (count,)
        """
        energy, force = self.disagreement(positions)
        tiny = torch.finfo(energy.dtype).tiny
        score = torch.maximum(energy / energy.median().clamp(min=tiny), force / force.median().clamp(min=tiny))
        num_random = min(count, math.floor(settings.random_share * count + 0.5))
        order = score.argsort(descending=True)
        best, rest = order[: count - num_random], order[count - num_random :]
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randperm(len(rest), generator=generator)[:num_random]
        return torch.cat([best, rest[drawn]])
