"""Labelled configurations as tensors: sets of one cell each, their split, their weights and their batches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from lightning_vfe.errors import SettingError
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.units import HARTREE_PER_BOHR3_TO_GPA

Batch = TypeVar("Batch", covariant=True)


@dataclass(frozen=True)
class LabelledSet:
    """C configurations of one cell with their labels; what the calculator does not give is None.

    Attributes:
        cell: the periodic cell of all of them.
        positions: bohr. # (C, N, 3)
        energy: the target of the fit in Ha, whole cell: E - TS where the electrons are smeared. # (C,)
        weights: of the energies in the loss, mean one over the training set. # (C,)
        ids: row numbers in the database. # (C,)
        forces: Ha/bohr. # (C, N, 3)
        pressure: of the potential, without N kT/V, Ha/bohr^3. # (C,)
        energy_error: one standard error of the energy in Ha. # (C,)
        forces_error: one standard error of each component in Ha/bohr. # (C, N, 3)
        force_weights: of the components in the loss, mean one over the training set. # (C, N, 3)
    """

    cell: PeriodicCell
    positions: Tensor
    energy: Tensor
    weights: Tensor
    ids: tuple[int, ...]
    forces: Tensor | None = None
    pressure: Tensor | None = None
    energy_error: Tensor | None = None
    forces_error: Tensor | None = None
    force_weights: Tensor | None = None

    def __len__(self) -> int:
        return len(self.energy)

    @classmethod
    def from_arrays(cls, cell: PeriodicCell, arrays: Mapping[str, np.ndarray]) -> LabelledSet:
        """From the arrays of a label database, in the default dtype.

        They are positions, free_energy (or energy), and where there are any forces, pressure_gpa, energy_error,
        forces_error, id.
        """

        def tensor(name: str, scale: float = 1.0) -> Tensor | None:
            if name not in arrays:
                return None
            return torch.as_tensor(np.asarray(arrays[name], dtype=float) * scale).to(torch.get_default_dtype())

        positions, energy = tensor("positions"), tensor("free_energy")
        energy = tensor("energy") if energy is None else energy
        if positions is None or energy is None:
            raise ValueError(f"labels need positions and free_energy or energy, and have {sorted(arrays)}")
        ids = tuple(int(i) for i in arrays.get("id", range(len(energy))))
        pressure = tensor("pressure_gpa", 1.0 / HARTREE_PER_BOHR3_TO_GPA)
        weights = torch.ones_like(energy)
        errors = tensor("energy_error"), tensor("forces_error")
        return cls(cell, positions, energy, weights, ids, tensor("forces"), pressure, *errors)

    def select(self, index: Tensor) -> LabelledSet:
        """The configurations of an index. # (C',)"""
        parts: dict[str, Any] = {name: value[index] for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, ids=tuple(self.ids[i] for i in index.tolist()), **parts)

    def to(self, device: torch.device) -> LabelledSet:
        """The same on another device."""
        parts: dict[str, Any] = {name: v.to(device) for name, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **parts)


def check_batches(batch_size: int, validation_fraction: float, test_fraction: float) -> None:
    """Refuse settings of a datamodule that cannot make batches of three parts.

    Raises:
        ValueError: one line that begins with the setting.
    """
    if batch_size < 1:
        raise SettingError("batch_size", batch_size, "must be at least 1")
    for name, value in (("validation_fraction", validation_fraction), ("test_fraction", test_fraction)):
        if not 0 < value < 1:
            raise SettingError(name, value, "must be between 0 and 1, such as 0.1")
    if validation_fraction + test_fraction >= 1:
        raise SettingError("test_fraction", test_fraction, "leaves nothing to train on", "lower it")


def check_processes(batch_size: int, num_ranks: int) -> None:
    """Refuse batches that do not divide into the processes.

    Raises:
        ValueError: one line that begins with the setting.
    """
    if batch_size % num_ranks:
        raise SettingError("batch_size", batch_size, f"must be a multiple of the number of processes, {num_ranks}")


def train_validation_test_split(
    count: int, fractions: tuple[float, float], seed: int, group: str, origin: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Random training, validation and test indices of `count` configurations.

    Args:
        count: of the group.
        fractions: of validation and test; each gets at least one configuration.
        seed: of the split.
        group: name of the group, so that groups are split independently of each other and of their order.
        origin: the setting that the configurations come from, for the message.

    Raises:
        ValueError: fewer than three configurations, or nothing is left to train on.
    """
    sizes = [max(1, round(fraction * count)) for fraction in fractions]
    if count - sum(sizes) < 1:
        raise SettingError(
            "configurations",
            count,
            f"of {origin} are too few",
            "training, validation and test need one each at least: give more, or lower datamodule.validation_fraction "
            "and test_fraction",
        )
    mixed = hashlib.sha256(f"{seed} {group}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(mixed[:6], "big"))
    order = torch.randperm(count, generator=generator)
    validation, test = order[: sizes[0]], order[sizes[0] : sum(sizes)]
    return order[sum(sizes) :].sort().values, validation.sort().values, test.sort().values


def share_of_batch(index: Tensor, rank: int, num_ranks: int) -> Tensor:
    """Every num_ranks-th configuration of a batch, for one process. # (C,) -> (C',), C' the same for all processes"""
    # the last, shorter batch of a set may have fewer configurations than there are processes
    return index.repeat(-(-num_ranks // len(index)))[rank::num_ranks]


class BatchOrder:
    """Shuffled batches of one set each, epoch after epoch; its state resumes an interrupted epoch exactly.

    Args:
        sizes: configurations of each set.
        batch_size: largest number of configurations of a batch.
        seed: of the order.
    """

    def __init__(self, sizes: Sequence[int], batch_size: int, seed: int) -> None:
        self.sizes, self.batch_size = list(sizes), batch_size
        self._generator = torch.Generator().manual_seed(seed)
        self._epoch_start = self._generator.get_state()
        self._done = 0

    def __len__(self) -> int:
        return sum(-(-size // self.batch_size) for size in self.sizes)

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        """The rest of the epoch that was begun, or a new one: number of the set and indices in it."""
        batches = self._draw()
        if self._done == len(self):
            # an order that was loaded has not drawn the epoch before by itself
            self._epoch_start, self._done = self._generator.get_state(), 0
            batches = self._draw()
        for batch in batches[self._done :]:
            self._done += 1
            yield batch

    def _draw(self) -> list[tuple[int, Tensor]]:
        """The batches of the epoch that begins at epoch_start; leaves the generator where the next one begins."""
        self._generator.set_state(self._epoch_start)
        batches = []
        for number, size in enumerate(self.sizes):
            order = torch.randperm(size, generator=self._generator)
            batches += [(number, part) for part in order.split(self.batch_size)]
        return [batches[place] for place in torch.randperm(len(batches), generator=self._generator).tolist()]

    def state_dict(self) -> dict[str, object]:
        """Where the order stands."""
        return {"epoch_start": self._epoch_start, "done": self._done, "sizes": self.sizes}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Go on where another order stood; the sizes have to be the same."""
        assert state["sizes"] == self.sizes
        assert isinstance(state["epoch_start"], Tensor)
        self._epoch_start, self._done = state["epoch_start"], int(str(state["done"]))


class ShuffledBatches(IterableDataset[Batch]):
    """The training batches of an epoch; a process takes every num_ranks-th configuration of each.

    Args:
        order: of the batches.
        select: number of a set and indices in it -> the batch of these configurations.
        rank: number of the process.
        num_ranks: of all processes.
    """

    def __init__(
        self, order: BatchOrder, select: Callable[[int, Tensor], Batch], rank: int = 0, num_ranks: int = 1
    ) -> None:
        self.order, self.select, self.rank, self.num_ranks = order, select, rank, num_ranks

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Batch]:
        for number, index in self.order:
            yield self.select(number, share_of_batch(index, self.rank, self.num_ranks))
