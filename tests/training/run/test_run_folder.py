"""A run that is interrupted, or killed, goes on from its last checkpoint to the same numbers."""

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from lightning_vfe.training.run.checkpoint_files import CheckpointFolder
from lightning_vfe.training.run.interrupt import StopOnInterrupt
from lightning_vfe.training.run.launch import configure_logging_and_seed, launch
from lightning_vfe.training.run.loggers import MetricsCSVLogger
from lightning_vfe.training.run.run_folder import CONFIG_KEY, EmbedConfig, LastCheckpoint
from tests.helpers.trainers import quiet_trainer


class Chain(L.LightningDataModule, IterableDataset):
    """A random walk that makes the batches, with its position and generator as state; epochs of seven steps."""

    def __init__(self, validate: bool) -> None:
        super().__init__()
        self.validate = validate
        self.position, self.generator = torch.zeros(3), torch.Generator().manual_seed(1)

    def __len__(self) -> int:
        return 7

    def __iter__(self) -> Iterator[torch.Tensor]:
        for _ in range(7):
            self.position = self.position + torch.randn(3, generator=self.generator)
            yield self.position

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self, batch_size=None)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        return DataLoader(torch.ones(2, 3), batch_size=None) if self.validate else []

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
        self.register_buffer("best", torch.full((), torch.inf))

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        if self.global_step == self.at:
            if isinstance(self.event, signal.Signals):
                os.kill(os.getpid(), self.event)
            elif self.event is not None:
                raise self.event("as planned")
        loss = (self.weight - batch).square().sum()
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.log("validation_loss", (self.weight - batch).square().sum(), batch_size=1)

    def on_validation_epoch_end(self) -> None:
        self.best = torch.minimum(self.best, self.trainer.callback_metrics["validation_loss"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.1)


def fit(
    folder: Path,
    module: Fit,
    max_steps: int = 20,
    resume: bool = False,
    every_n_steps: int = 4,
    validate: bool = False,
) -> int:
    """Run a fit in a folder; returns the signal that interrupted it, or 0."""
    configure_logging_and_seed(3)
    checkpoint = LastCheckpoint(folder / "checkpoints", every_n_steps)
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        max_epochs=-1,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[StopOnInterrupt(), EmbedConfig("name: toy"), checkpoint],
        logger=MetricsCSVLogger(folder),
    )
    return launch(trainer, "fit", module, Chain(validate), str(checkpoint.file) if resume else None)


def results(folder: Path) -> tuple[str, dict]:
    """Table of a folder, and its checkpoint."""
    return (folder / "metrics.csv").read_text(), torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def assert_same(folder: Path, reference: Path) -> None:
    (table, checkpoint), (expected_table, expected) = results(folder), results(reference)
    assert table == expected_table
    assert checkpoint["global_step"] == expected["global_step"]
    for name, value in expected["state_dict"].items():
        assert torch.equal(checkpoint["state_dict"][name], value)
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
    assert checkpoint["global_step"] == 20
    assert checkpoint[CONFIG_KEY] == "name: toy"
    assert table.count("\n") == 21
    files = reference / "checkpoints"
    kept = [f"step-{step:08d}.ckpt" for step in (12, 16, 20)]
    assert sorted(file.name for file in files.iterdir()) == ["last.ckpt", *kept]
    saved = [torch.load(files / name, weights_only=True)["global_step"] for name in kept]
    assert saved == [12, 16, 20]
    assert (files / "last.ckpt").samefile(files / kept[-1]), "two names of one file take the space of one"


def test_first_interrupt_ends_the_step_and_saves(tmp_path: Path, reference: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    assert fit(tmp_path, Fit(at=9, event=signal.SIGINT))
    assert signal.getsignal(signal.SIGINT) is before
    assert results(tmp_path)[1]["global_step"] == 10
    assert not fit(tmp_path, Fit(), resume=True)
    assert_same(tmp_path, reference)


@pytest.mark.parametrize("at", [9, 13])
def test_an_interrupt_adds_no_validation(tmp_path: Path, at: int) -> None:
    """In the midst of an epoch, and in its last step."""
    fit(tmp_path / "straight", Fit(), validate=True)
    assert fit(tmp_path / "broken", Fit(at=at, event=signal.SIGTERM), validate=True) == signal.SIGTERM
    assert results(tmp_path / "broken")[1]["global_step"] == at + 1
    fit(tmp_path / "broken", Fit(), resume=True, validate=True)
    assert_same(tmp_path / "broken", tmp_path / "straight")


def test_a_crash_goes_on_from_the_save_before(tmp_path: Path, reference: Path) -> None:
    with pytest.raises(RuntimeError, match="as planned"):
        fit(tmp_path, Fit(at=10, event=RuntimeError))
    table, checkpoint = results(tmp_path)
    assert checkpoint["global_step"] == 8, "rows 8 and 9 came after the checkpoint"
    assert table.count("\n") == 11, "rows 8 and 9 came after the checkpoint"
    assert not fit(tmp_path, Fit(), resume=True)
    assert_same(tmp_path, reference)


def test_more_steps_after_the_end(tmp_path: Path, reference: Path) -> None:
    fit(tmp_path, Fit(), max_steps=14)
    fit(tmp_path, Fit(), max_steps=20, resume=True)
    assert_same(tmp_path, reference)


@pytest.mark.parametrize("validate", [False, True])
def test_saves_at_the_end_of_an_epoch(tmp_path: Path, validate: bool) -> None:
    """Epochs have seven steps; the validation after the last one belongs to it."""
    fit(tmp_path / "straight", Fit(), validate=validate)
    assert ("validation_loss" in results(tmp_path / "straight")[0]) == validate
    for at in (7, 8, 14):
        folder = tmp_path / str(at)
        with pytest.raises(RuntimeError, match="as planned"):
            fit(folder, Fit(at=at, event=RuntimeError), every_n_steps=7, validate=validate)
        assert results(folder)[1]["global_step"] == at // 7 * 7
        fit(folder, Fit(), resume=True, every_n_steps=7, validate=validate)
        assert_same(folder, tmp_path / "straight")


def test_a_save_counts_once_its_step_is_logged(tmp_path: Path, reference: Path) -> None:
    """A run that breaks between the save of a step and its row goes on from the save before and loses no row."""

    class Broken(MetricsCSVLogger):
        def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
            if step == 11:
                raise OSError("disk full")
            super().log_metrics(metrics, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{__name__}.MetricsCSVLogger", Broken)
        patch.setattr("lightning_vfe.training.run.run_folder.MetricsCSVLogger", Broken)
        with pytest.raises(OSError, match="disk full"):
            fit(tmp_path, Fit())
    assert (tmp_path / "checkpoints" / "last.ckpt.pending").is_file()
    assert results(tmp_path)[1]["global_step"] == 8
    fit(tmp_path, Fit(), resume=True)
    assert_same(tmp_path, reference)
    assert not list((tmp_path / "checkpoints").glob("*.pending"))


def test_going_back_to_an_earlier_checkpoint(tmp_path: Path, reference: Path) -> None:
    """What the abandoned steps left is gone once the run has saved again."""
    fit(tmp_path, Fit())
    files = tmp_path / "checkpoints"
    (files / "step-00000016.ckpt").replace(files / "last.ckpt")
    fit(tmp_path, Fit(), max_steps=18, resume=True)
    assert sorted(file.name for file in files.glob("step*")) == ["step-00000012.ckpt", "step-00000018.ckpt"]
    assert results(tmp_path)[0].count("\n") == 19


@pytest.mark.parametrize("best_loss", [torch.inf, 1.0])
def test_broken_parameters_never_take_the_place_of_good_ones(tmp_path: Path, best_loss: float) -> None:
    """The run fails, unless it has kept a good result before."""

    class Broken(Fit):
        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            return super().training_step(batch, batch_idx) * (torch.nan if self.global_step >= 10 else 1.0)

    module = Broken()
    module.best_loss = best_loss
    if best_loss == 1.0:
        fit(tmp_path, module)
    else:
        with pytest.raises(FloatingPointError, match=r"weight is not finite after 20 steps, and this state is not"):
            fit(tmp_path, module)
    kept = [f"step-{step:08d}.ckpt" for step in (4, 8)]
    assert sorted(file.name for file in (tmp_path / "checkpoints").iterdir()) == ["last.ckpt", *kept]
    assert results(tmp_path)[1]["global_step"] == 8


def test_saves_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes 40 seconds by this clock, which every look puts forward."""
    clock = itertools.count(step=40.0)
    monkeypatch.setattr("lightning_vfe.training.run.run_folder.time.monotonic", lambda: next(clock))
    saves: list[int] = []
    commit = CheckpointFolder.commit
    monkeypatch.setattr(CheckpointFolder, "commit", lambda self, step: (saves.append(step), commit(self, step)))
    checkpoint = LastCheckpoint(tmp_path / "checkpoints", every_n_steps=1000, every_minutes=3.0)
    trainer = quiet_trainer(11, checkpoint)
    trainer.fit(Fit(), Chain(validate=False))
    assert saves == [5, 10, 11], "160 seconds are too few, 200 are enough; the end is saved, too"


@pytest.mark.parametrize("name", ["every_n_steps", "keep_last", "every_minutes"])
def test_settings_must_be_positive(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} = 0"):
        LastCheckpoint(tmp_path, **{name: 0})
