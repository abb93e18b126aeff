"""Batches of proton configurations for maximum likelihood."""

from __future__ import annotations

from typing import Any

import lightning as L
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.training.flow_mle.sources import Source
from lightning_vfe.training.supervised.labelled import (
    BatchOrder,
    ShuffledBatches,
    check_batches,
    check_processes,
    train_validation_test_split,
)


class ConfigurationDataModule(L.LightningDataModule):
    """Configurations of one cell, split into training, validation and test parts.

    The configurations themselves are part of the checkpoint, so that a run is resumed and tested with the same ones.

    Args:
        cell: the periodic cell.
        source: where the configurations come from.
        batch_size: configurations of a batch, over all processes.
        validation_fraction: share of the configurations for validation.
        test_fraction: share for the test.
        seed: of source, split and order.

    Raises:
        ValueError: a setting is out of its range.
    """

    def __init__(
        self,
        cell: PeriodicCell,
        source: Source,
        batch_size: int = 64,
        validation_fraction: float = 0.1,
        test_fraction: float = 0.25,
        seed: int = 42,
    ) -> None:
        super().__init__()
        check_batches(batch_size, validation_fraction, test_fraction)
        self.cell, self.source, self.batch_size, self.seed = cell, source, batch_size, seed
        self.fractions = (validation_fraction, test_fraction)
        self.parts: tuple[Tensor, ...] = ()
        self._order: BatchOrder | None = None

    def read(self, num_ranks: int = 1) -> None:
        """Check the source.

        Raises:
            ValueError: it cannot be used, or the batches do not divide into the processes.
        """
        check_processes(self.batch_size, num_ranks)
        self.source.check(self.cell)

    def description(self) -> dict[str, str]:
        """What the banner says."""
        system = f"N = {self.cell.num_atoms}, rs = {self.cell.rs:g}, L = {self.cell.length:.4f} bohr"
        return {"system": f"hydrogen, {system}", "configurations": self.source.description()}

    def part(self, number: int) -> Tensor:
        """Training (0), validation (1) or test (2) configurations in bohr, drawn when first asked for. # (C, N, 3)"""
        if not self.parts:
            everything = self.source.draw(self.cell, self.seed)
            indices = train_validation_test_split(
                len(everything), self.fractions, self.seed, "data.source", origin="data.source"
            )
            self._take(tuple(everything[index] for index in indices))
        return self.parts[number]

    def _take(self, parts: tuple[Tensor, ...]) -> None:
        self.parts = parts
        self._order = BatchOrder([len(parts[0])], self.batch_size, self.seed)

    # --- loaders ----------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Shuffled batches of one epoch."""
        train = self.part(0)
        assert self._order is not None
        rank, num_ranks = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        batches = ShuffledBatches(self._order, lambda _, index: train[index], rank, num_ranks)
        return DataLoader(batches, batch_size=None, num_workers=0)

    def val_dataloader(self) -> DataLoader[Tensor]:
        """The validation configurations, in order."""
        return DataLoader(list(self.part(1).split(self.batch_size)), batch_size=None, num_workers=0)  # type: ignore[arg-type]

    def test_dataloader(self) -> DataLoader[Tensor]:
        """The test configurations, in order."""
        return DataLoader(list(self.part(2).split(self.batch_size)), batch_size=None, num_workers=0)  # type: ignore[arg-type]

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Configurations, and where the order of the batches stands."""
        if self._order is None:
            return {}
        return {"parts": list(self.parts), "order": self._order.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the configurations of the checkpoint."""
        if state_dict:
            self._take(tuple(state_dict["parts"]))
            assert self._order is not None
            self._order.load_state_dict(state_dict["order"])
