"""Proton configurations to learn a density from: Markov chains, a label database, or a trajectory."""

from __future__ import annotations

import abc
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from lightning_vfe.errors import SettingError
from lightning_vfe.labels.database import LabelDatabase, LabelState
from lightning_vfe.labels.files import GivenConfigurations, find_configurations
from lightning_vfe.models.base.boltzmann import BoltzmannBase
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.strata import Strata
from lightning_vfe.physics.system import System
from lightning_vfe.resources import data_file
from lightning_vfe.sampling.boltzmann import ChainSettings, sample_configurations

ALL = 10**9


class Source(abc.ABC):
    """Where configurations come from."""

    @abc.abstractmethod
    def check(self, cell: PeriodicCell) -> None:
        """Look at the source without the work of drawing from it.

        Raises:
            ValueError: it cannot be used for this cell.
        """

    def description(self) -> str:
        """What the banner says of it, after `check`."""
        return type(self).__name__

    @abc.abstractmethod
    def draw(self, cell: PeriodicCell, seed: int) -> Tensor:
        """Configurations in bohr, in the default dtype. # (C, N, 3)"""


class ChainSource(Source):
    """Metropolis-adjusted Langevin chains on a Boltzmann distribution.

    Args:
        base: the distribution.
        temperature_kelvin: its T.
        num_configurations: C.
        num_walkers: independent chains.
        equilibration_steps: steps that are discarded.
        spacing: steps between two configurations of one chain.

    Raises:
        ValueError: a number is not positive.
    """

    def __init__(
        self,
        base: BoltzmannBase,
        temperature_kelvin: float,
        num_configurations: int = 1024,
        num_walkers: int = 128,
        equilibration_steps: int = 300,
        spacing: int = 50,
    ) -> None:
        if num_configurations < 1:
            raise SettingError("num_configurations", num_configurations, "must be at least 1")
        self.settings = ChainSettings(num_walkers, equilibration_steps, spacing)
        self.base, self.temperature_kelvin, self.count = base, temperature_kelvin, num_configurations

    def check(self, cell: PeriodicCell) -> None:
        """The distribution is of this cell."""
        if self.base.cell != cell:
            raise SettingError("num_atoms", cell.num_atoms, f", rs = {cell.rs:g} is not the cell of data.target")

    def draw(self, cell: PeriodicCell, seed: int) -> Tensor:
        """Run the chains."""
        energy, temperature = self.base.energy, self.temperature_kelvin
        return sample_configurations(energy, cell, temperature, self.count, self.settings, seed).positions


class DatabaseSource(Source):
    """The configurations of one (N, rs) in a label database, whatever distribution they were sampled from.

    Args:
        database: path; `data/...` also finds the databases that the package ships.
    """

    def __init__(self, database: str) -> None:
        self.path = data_file(database)

    def check(self, cell: PeriodicCell) -> None:
        """The database has configurations of this cell."""
        self._arrays(cell)

    @override
    def draw(self, cell: PeriodicCell, seed: int) -> Tensor:
        """Read them."""
        return torch.as_tensor(self._arrays(cell)).to(torch.get_default_dtype())

    def _arrays(self, cell: PeriodicCell) -> np.ndarray:
        database = LabelDatabase.open(self.path)
        for num_atoms, rs in database.groups():
            if num_atoms == cell.num_atoms and abs(rs - cell.rs) < 1e-9 * rs:
                return database.arrays(num_atoms, rs)["positions"]
        raise SettingError(
            "database",
            self.path,
            f"has no configurations of num_atoms = {cell.num_atoms}, rs = {cell.rs:g}",
            f"it has {database.groups()}",
        )


class TrajectorySource(Source):
    """The frames of one (N, rs) in a file that ASE reads.

    Args:
        trajectory: path of the file.
        skip: frames left out at the beginning.

    Raises:
        ValueError: skip is negative.
    """

    def __init__(self, trajectory: str, skip: int = 0) -> None:
        if skip < 0:
            raise SettingError("skip", skip, "must not be negative")
        self.path, self.skip = Path(trajectory), skip
        self._found: tuple[PeriodicCell, GivenConfigurations] | None = None

    def check(self, cell: PeriodicCell) -> None:
        """The file has frames of this cell."""
        self._frames(cell)

    @override
    def draw(self, cell: PeriodicCell, seed: int) -> Tensor:
        """Read them."""
        return cell.wrap(torch.as_tensor(self._frames(cell)).to(torch.get_default_dtype()))

    @override
    def description(self) -> str:
        """How many frames are taken, and how many are not."""
        if self._found is None:
            return super().description()
        cell, given = self._found
        used = given.num_frames - given.num_other - self.skip
        other = f"; {given.num_other} of another N or box left out" if given.num_other else ""
        skipped = f"; the first {self.skip} skipped" if self.skip else ""
        return f"{used} of {given.num_frames} frames of {self.path} (N = {cell.num_atoms}){other}{skipped}"

    def _frames(self, cell: PeriodicCell) -> np.ndarray:
        if self._found is None or self._found[0] != cell:
            state = LabelState(cell.num_atoms, cell.rs, 0.0)  # the temperature of a file is not known
            keys = ("system.num_atoms", "system.rs")
            self._found = cell, find_configurations(self.path, [state], ALL, "trajectory", keys)
        (found,) = self._found[1].chosen.values()
        if len(found) <= self.skip:
            raise SettingError("skip", self.skip, f"leaves none of the {len(found)} frames of {self.path}")
        return np.stack([configuration.positions for configuration in found[self.skip :]])


def boltzmann_density(
    system: System, strata: Strata, potential_path: str | None, log_z_path: str | None = None
) -> BoltzmannBase | None:
    """The Boltzmann distribution of a stored potential with its ln Z; None without a path.

    Raises:
        ValueError: a file is missing or damaged, or has no ln Z of this state point.
    """
    if potential_path is None:
        return None
    strata.single  # noqa: B018  refuses several state points
    base = BoltzmannBase.from_files(system, strata, potential_path, log_z_path)
    assert isinstance(base, BoltzmannBase), "one state point"
    return base
