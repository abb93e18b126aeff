"""A run that is interrupted, or killed, goes on from its last checkpoint to the same numbers."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from lightning_vfe.training.launch import launch, quiet
from lightning_vfe.training.loggers import MetricsCSVLogger
from lightning_vfe.training.run_folder import CONFIG_KEY, EmbedConfig, LastCheckpoint, StopOnInterrupt


class Chain(L.LightningDataModule, IterableDataset):
    """A random walk that makes the batches, with its position and generator as state."""

    def __init__(self) -> None:
        super().__init__()
        self.position, self.generator = torch.zeros(3), torch.Generator().manual_seed(1)

    def __len__(self) -> int:
        return 7

    def __iter__(self) -> Iterator[torch.Tensor]:
        for _ in range(7):
            self.position = self.position + torch.randn(3, generator=self.generator)
            yield self.position

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self, batch_size=None)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"position": self.position, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.position = state["position"]
        self.generator.set_state(state["generator"])


class Fit(L.LightningModule):
    """Follows the chain; does something to its own process at a given step."""

    def __init__(self, at: int | None = None, event: signal.Signals | type[Exception] | None = None) -> None:
        super().__init__()
        self.weight, self.at, self.event = torch.nn.Parameter(torch.zeros(3)), at, event

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        if self.global_step == self.at:
            if isinstance(self.event, signal.Signals):
                os.kill(os.getpid(), self.event)
            elif self.event is not None:
                raise self.event("as planned")
        loss = (self.weight - batch).square().sum()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.1)


def fit(folder: Path, module: Fit, max_steps: int = 20, resume: bool = False) -> bool:
    """Run a fit in a folder; returns whether it was interrupted."""
    quiet(3)
    checkpoint = LastCheckpoint(folder / "checkpoints", every_n_steps=4)
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        max_epochs=-1,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[StopOnInterrupt(), EmbedConfig("name: toy"), checkpoint],
        logger=MetricsCSVLogger(folder),
    )
    return launch(trainer, "fit", module, Chain(), str(checkpoint.file) if resume else None)


def results(folder: Path) -> tuple[str, dict]:
    """Table of a folder, and its checkpoint."""
    return (folder / "metrics.csv").read_text(), torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def assert_same(folder: Path, reference: Path) -> None:
    (table, checkpoint), (expected_table, expected) = results(folder), results(reference)
    assert table == expected_table
    assert checkpoint["global_step"] == expected["global_step"]
    assert torch.equal(checkpoint["state_dict"]["weight"], expected["state_dict"]["weight"])
    for name, value in expected["Chain"].items():
        assert torch.equal(checkpoint["Chain"][name], value)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("reference")
    torch.set_default_dtype(torch.float64)
    assert not fit(folder, Fit())
    return folder


def test_the_last_step_is_saved_with_the_config(reference: Path) -> None:
    table, checkpoint = results(reference)
    assert checkpoint["global_step"] == 20 and checkpoint[CONFIG_KEY] == "name: toy"
    assert table.count("\n") == 21
    assert [file.name for file in (reference / "checkpoints").iterdir()] == ["last.ckpt"]


def test_first_interrupt_ends_the_step_and_saves(tmp_path: Path, reference: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    assert fit(tmp_path, Fit(at=9, event=signal.SIGINT))
    assert signal.getsignal(signal.SIGINT) is before
    assert results(tmp_path)[1]["global_step"] == 10
    assert not fit(tmp_path, Fit(), resume=True)
    assert_same(tmp_path, reference)


def test_a_crash_goes_on_from_the_save_before(tmp_path: Path, reference: Path) -> None:
    with pytest.raises(RuntimeError, match="as planned"):
        fit(tmp_path, Fit(at=10, event=RuntimeError))
    table, checkpoint = results(tmp_path)
    assert checkpoint["global_step"] == 8 and table.count("\n") == 11, "rows 8 and 9 came after the checkpoint"
    assert not fit(tmp_path, Fit(), resume=True)
    assert_same(tmp_path, reference)


def test_more_steps_after_the_end(tmp_path: Path, reference: Path) -> None:
    fit(tmp_path, Fit(), max_steps=14)
    fit(tmp_path, Fit(), max_steps=20, resume=True)
    assert_same(tmp_path, reference)


def test_every_n_steps_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="every_n_steps = 0"):
        LastCheckpoint(tmp_path, every_n_steps=0)
