"""Batches of a label database for the fit of a potential."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader, IterableDataset
from typing_extensions import override

from lightning_vfe.errors import SettingError
from lightning_vfe.labels.database import LabelDatabase
from lightning_vfe.labels.foreign import SUFFIXES, ForeignLabels
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.resources import data_file
from lightning_vfe.training.supervised.labelled import (
    BatchOrder,
    LabelledSet,
    ShuffledBatches,
    check_batches,
    check_processes,
    train_validation_test_split,
)
from lightning_vfe.training.supervised.weights import check_floors, with_error_weights

PARTS = ("train", "validation", "test")
MOST_CELLS = 6
"""Cells that the banner and the tables list one by one."""


class LabelDataModule(L.LightningDataModule):
    """Training, validation and test configurations of a database made by `lightning-vfe label`.

    A batch holds configurations of one cell. The split is drawn once from the seed, in every group of equal cells on
    its own, and is part of the checkpoint: rows that come into the database later are left alone by a resumed run.
    Cells with few configurations, such as those of a region, are split as one group for each number of atoms.

    Args:
        database: path of the database; `data/...` also finds the ones that the package ships.
        batch_size: configurations of a batch, over all processes.
        validation_fraction: share of the configurations for validation.
        test_fraction: share for the test.
        energy_error_floor: energies with error bars get weights 1 / (error^2 + floor^2); in Ha per atom.
        force_error_floor: the same of forces with error bars, in Ha/bohr.
        units: of an extended XYZ or HDF5 set from elsewhere, see `ForeignLabels`; None for a database of `label`.
        seed: of split and order.

    Raises:
        ValueError: a setting is out of its range.
    """

    def __init__(
        self,
        database: str,
        batch_size: int = 16,
        validation_fraction: float = 0.1,
        test_fraction: float = 0.1,
        energy_error_floor: float = 1e-4,
        force_error_floor: float = 1e-3,
        units: dict[str, str] | None = None,
        seed: int = 42,
    ) -> None:
        super().__init__()
        check_batches(batch_size, validation_fraction, test_fraction)
        check_floors(energy_error_floor, force_error_floor)
        self.path = data_file(database)
        self.batch_size = batch_size
        self.fractions = (validation_fraction, test_fraction)
        self.error_floors = energy_error_floor, force_error_floor
        self.units, self.seed = units, seed
        self.sets: dict[str, list[LabelledSet]] = {}
        self.temperatures: set[float] = set()
        self.metadata: dict[str, Any] = {}
        self._everything: list[LabelledSet] = []
        self._order: BatchOrder | None = None

    @property
    def train_sets(self) -> list[LabelledSet]:
        """Training configurations, one set for each cell that has any."""
        return [group for group in self.sets["train"] if len(group) > 0]

    @property
    def region(self) -> dict[str, list[float]]:
        """[least, largest] of `rs` in bohr and of `temperature_kelvin` in K: where the labels stand for all states.

        That is the region which `lightning-vfe label` was given, or else the least and the largest of the labels.
        Labels from elsewhere may have no temperatures.
        """
        densities = [group.cell.rs for group in self._everything]
        found = {"rs": densities, "temperature_kelvin": [*self.temperatures]} | self.metadata.get("region", {})
        return {name: [min(values), max(values)] for name, values in found.items() if values}

    def read(self, num_ranks: int = 1) -> None:
        """Read the database and split it, unless that is done.

        Raises:
            ValueError: the database cannot be used, or the batches do not divide into the processes.
        """
        check_processes(self.batch_size, num_ranks)
        if self._everything:
            return
        is_foreign = Path(self.path).suffix.lower() in SUFFIXES
        if self.units is not None and not is_foreign:
            raise SettingError("units", dict(self.units), f"has no effect: {self.path} names its own", "drop it")
        database = ForeignLabels(str(self.path), self.units) if is_foreign else LabelDatabase.open(self.path)
        self.metadata = database.metadata
        for num_atoms, rs in database.groups():
            arrays = database.arrays(num_atoms, rs)
            self.temperatures |= {float(value) for value in arrays.get("temperature_kelvin", ())}
            self._everything.append(LabelledSet.from_arrays(PeriodicCell(num_atoms, rs), arrays))
        self._choose(self._split())

    def _split(self) -> dict[str, list[list[int]]]:
        """Row ids of the three parts, for each cell."""
        least = math.ceil(1.0 / min(self.fractions))
        together: dict[str, list[LabelledSet]] = {}
        for group in self._everything:
            cell = group.cell
            alike = [other for other in self._everything if other.cell.num_atoms == cell.num_atoms]
            is_small = len(group) < least and len(alike) > 1
            name = f"num_atoms = {cell.num_atoms}" + ("" if is_small else f", rs = {cell.rs:g}")
            together.setdefault(name, []).append(group)
        part_of: dict[int, str] = {}
        for name, groups in together.items():
            ids = [row for group in groups for row in group.ids]
            origin = f"datamodule.database = {self.path} at {name}"
            parts = train_validation_test_split(len(ids), self.fractions, self.seed, name, origin)
            part_of |= {ids[i]: part for part, index in zip(PARTS, parts, strict=True) for i in index.tolist()}
        return {
            part: [[row for row in group.ids if part_of[row] == part] for group in self._everything] for part in PARTS
        }

    def _choose(self, chosen: dict[str, list[list[int]]]) -> None:
        """Make the three parts from row ids of each group."""
        for part in PARTS:
            self.sets[part] = []
            for group, ids in zip(self._everything, chosen[part], strict=True):
                places = {row: i for i, row in enumerate(group.ids)}
                if missing := [row for row in ids if row not in places]:
                    raise SettingError(
                        "database",
                        self.path,
                        f"lacks row {missing[0]} that the checkpoint's run was fitted to",
                        "give that run's database, or start a new fit",
                    )
                self.sets[part].append(group.select(torch.tensor([places[row] for row in ids], dtype=torch.int64)))
        train = self.sets["train"]
        energy, force = self.error_floors
        self.sets = {part: with_error_weights(self.sets[part], energy, train, force) for part in PARTS}
        self._order = BatchOrder([len(group) for group in self.train_sets], self.batch_size, self.seed)

    def description(self) -> dict[str, str]:
        """What the banner says."""
        cells = [group.cell for group in self._everything]
        if len(cells) > MOST_CELLS:
            low, high = min(cell.rs for cell in cells), max(cell.rs for cell in cells)
            groups = [f"{sum(map(len, self._everything))} of {len(cells)} cells, rs = {low:g} to {high:g}"]
        else:
            groups = [f"{len(part)} of N = {part.cell.num_atoms}, rs = {part.cell.rs:g}" for part in self._everything]
        counts = [f"{sum(map(len, self.sets[part]))} {part}" for part in PARTS]
        return {"labels": f"{self.path}: {'; '.join(groups)}", "split": ", ".join(counts)}

    # --- loaders ----------------------------------------------------------------------------------------------------

    @override
    def setup(self, stage: str) -> None:
        """Read the database."""
        self.read(1 if self.trainer is None else self.trainer.world_size)

    def train_dataloader(self) -> DataLoader[LabelledSet]:
        """Shuffled batches of one epoch."""
        assert self._order is not None
        rank, num_ranks = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        return _loader(
            ShuffledBatches(self._order, lambda which, index: self.train_sets[which].select(index), rank, num_ranks)
        )

    def val_dataloader(self) -> DataLoader[LabelledSet]:
        """The validation configurations, in order; all of them in every process."""
        return _loader(_InOrder(self.sets["validation"], self.batch_size))

    def test_dataloader(self) -> DataLoader[LabelledSet]:
        """The test configurations, in order; all of them in every process."""
        return _loader(_InOrder(self.sets["test"], self.batch_size))

    @override
    def transfer_batch_to_device(self, batch: LabelledSet, device: torch.device, dataloader_idx: int) -> LabelledSet:
        """A set knows how to move."""
        return batch.to(device)

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The split as row ids, and where the order of the batches stands."""
        assert self._order is not None
        cells = [[group.cell.num_atoms, group.cell.rs] for group in self._everything]
        ids = {part: [[*group.ids] for group in self.sets[part]] for part in PARTS}
        return {"cells": cells, "ids": ids, "order": self._order.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the split of the checkpoint and continue in its order.

        Raises:
            ValueError: the database has lost rows or cells of the split.
        """
        assert self._order is not None, "Lightning calls setup() before it restores a checkpoint"
        known = {(group.cell.num_atoms, group.cell.rs): group for group in self._everything}
        wanted = [(int(num_atoms), float(rs)) for num_atoms, rs in state_dict["cells"]]
        if missing := [cell for cell in wanted if cell not in known]:
            raise SettingError(
                "database",
                self.path,
                f"lacks num_atoms, rs = {missing[0]} that the checkpoint's run was fitted to",
                "give that run's database, or start a new fit",
            )
        self._everything = [known[cell] for cell in wanted]
        self._choose(state_dict["ids"])
        self._order.load_state_dict(state_dict["order"])

    def provenance(self) -> dict[str, Any]:
        """Where the labels come from, as JSON can hold it."""
        kept = ("calculator", "settings", "code_version", "command", "units")
        found: dict[str, Any] = {
            "database": Path(self.path).name,
            "num_configurations": sum(map(len, self._everything)),
        }
        return found | {name: self.metadata[name] for name in kept if name in self.metadata}


class _InOrder(IterableDataset[LabelledSet]):
    """All configurations of some sets, in parts."""

    def __init__(self, sets: Sequence[LabelledSet], batch_size: int) -> None:
        filled = [group for group in sets if len(group) > 0]
        self.parts = [group.select(part) for group in filled for part in torch.arange(len(group)).split(batch_size)]

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[LabelledSet]:
        yield from self.parts


def _loader(dataset: IterableDataset[LabelledSet]) -> DataLoader[LabelledSet]:
    return DataLoader(dataset, batch_size=None, num_workers=0)
