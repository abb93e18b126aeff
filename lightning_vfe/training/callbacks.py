"""What runs beside the steps: equilibration, a guard against broken numbers, the progress bar, the summary."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.utilities import rank_zero_only
from tqdm import trange

from lightning_vfe.analysis.figures import save_figures
from lightning_vfe.optim.natural_gradient import NaturalGradient
from lightning_vfe.training.datamodule import MCMCDataModule
from lightning_vfe.training.module import VariationalFreeEnergy
from lightning_vfe.training.summary import Summary as RunSummary


def _parts(trainer: L.Trainer) -> tuple[VariationalFreeEnergy, MCMCDataModule]:
    module, datamodule = trainer.lightning_module, trainer.datamodule  # type: ignore[attr-defined]
    if not (isinstance(module, VariationalFreeEnergy) and isinstance(datamodule, MCMCDataModule)):
        raise TypeError("this callback works with VariationalFreeEnergy and MCMCDataModule")
    return module, datamodule


ACCEPTANCES = {"acc_p": "proton_acceptance", "acc_d": "delayed_acceptance", "acc_e": "electron_acceptance"}
"""Accepted fractions behind the progress bar, where a run has them."""


class Equilibrate(Callback):
    """Runs the chains before their first use: at the start of a new `fit`, and afresh before `validate` and `test`.

    A resumed `fit` goes on with the walkers of the checkpoint as they are. The widths of the moves adapt in `fit` only.

    Raises:
        ValueError: the checkpoint of a resumed run holds no walkers (for example those of a renamed datamodule).
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Equilibrate the walkers of a new run."""
        _, datamodule = _parts(trainer)
        assert datamodule.walkers is not None
        if trainer.ckpt_path is not None and not datamodule.restored:
            raise ValueError(f"ckpt_path = {trainer.ckpt_path} holds no walkers of this datamodule; start a new run")
        if not datamodule.walkers.equilibrated:
            self._run(trainer, datamodule, adapt=True)
            datamodule.walkers.equilibrated = True

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let the walkers forget the parameters of earlier steps; new ones find their width first."""
        _, datamodule = _parts(trainer)
        assert datamodule.walkers is not None
        self._run(trainer, datamodule, adapt=not datamodule.walkers.equilibrated)

    on_validation_start = on_test_start

    @staticmethod
    def _run(trainer: L.Trainer, datamodule: MCMCDataModule, adapt: bool) -> None:
        hidden = not trainer.is_global_zero or trainer.progress_bar_callback is None or not sys.stdout.isatty()
        steps = datamodule.equilibration_steps
        for _ in trange(steps, desc="equilibrate", leave=False, disable=hidden, file=sys.stdout):
            datamodule.advance(adapt)


class NaNGuard(Callback):
    """Skips an update whose gradient is not finite, so that the parameters stay those of the last good step.

    Args:
        patience: so many such steps in a row end the run.

    Raises:
        FloatingPointError: patience is used up.
        ValueError: patience is below 1.
    """

    def __init__(self, patience: int = 10) -> None:
        if patience < 1:
            raise ValueError(f"callbacks.nan_guard.patience = {patience} must be at least 1")
        self.patience = patience
        self.num_skipped = 0
        self._in_a_row = 0
        self._seen = 0  # updates that the natural gradient had skipped at the last look

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Drop all gradients if one is not finite (DDP has averaged them, so all processes decide alike)."""
        parameters = [p for p in pl_module.parameters() if p.grad is not None]
        if not parameters:
            return  # the natural gradient skips bad updates by itself, see on_train_batch_end
        total = sum(p.grad.sum() for p in parameters if p.grad is not None)
        skipped = not bool(torch.isfinite(torch.as_tensor(total)))
        if skipped:
            for parameter in parameters:
                parameter.grad = None  # optimizers leave parameters without a gradient alone
        self._count(int(skipped))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the updates that the natural gradient has skipped."""
        for optimizer in trainer.optimizers:
            if isinstance(optimizer, NaturalGradient):
                self._count(optimizer.num_skipped - self._seen)
                self._seen = optimizer.num_skipped

    def _count(self, skipped: int) -> None:
        self.num_skipped += skipped
        self._in_a_row = self._in_a_row + 1 if skipped else 0
        if self._in_a_row >= self.patience:
            raise FloatingPointError(
                f"updates were not finite in {self._in_a_row} steps in a row; the parameters are those of the last "
                "good step: lower optimizer.wavefunction_max_norm and optimizer.flow_max_norm (with optimizer=adam the "
                "learning rates) and resume"
            )

    def state_dict(self) -> dict[str, Any]:
        """Counts, for an exact resume."""
        return {"num_skipped": self.num_skipped, "in_a_row": self._in_a_row, "seen": self._seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Counts of the checkpoint."""
        self.num_skipped, self._in_a_row = state_dict["num_skipped"], state_dict["in_a_row"]
        self._seen = state_dict["seen"]


class ProgressBar(TQDMProgressBar):
    """F +- error, E, S, P over the last steps, with acceptances and R-hat. For watching: results come from `test`."""

    def __init__(self) -> None:
        # Where nobody watches, a line now and then is enough.
        super().__init__(refresh_rate=1 if sys.stdout.isatty() else 50)

    def get_metrics(
        self, trainer: L.Trainer, pl_module: L.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """What stands behind the bar."""
        if not isinstance(pl_module, VariationalFreeEnergy) or not pl_module.recent:
            return {}
        shown: dict[str, int | str | float | dict[str, float]] = dict(pl_module.recent_estimates())
        for label, name in ACCEPTANCES.items():
            if name in trainer.callback_metrics:
                shown[label] = f"{float(trainer.callback_metrics[name]):.2f}"
        return shown


class Summary(Callback):
    """After `test`: summary.json, pair_correlation.csv and the figures in the run folder, and the table in print.

    `fit` ends with the figure of its curves, `validate` prints the table only.

    Args:
        run_dir: the run folder.
    """

    def __init__(self, run_dir: str | os.PathLike[str]) -> None:
        self.run_dir = Path(run_dir)

    @rank_zero_only
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Files, figures and table."""
        summary = self._summary(trainer)
        summary.write(self.run_dir)
        summary.print()
        self._draw()

    @rank_zero_only
    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Figure of the training curves, where there is a run folder with curves to draw."""
        if (self.run_dir / "config.yaml").is_file() and (self.run_dir / "metrics.csv").is_file():
            self._draw()

    def _draw(self) -> None:
        if (self.run_dir / "config.yaml").is_file():
            for file in save_figures(self.run_dir):
                print(f"figure: {file}")

    @rank_zero_only
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Table."""
        self._summary(trainer).print()

    @staticmethod
    def _summary(trainer: L.Trainer) -> RunSummary:
        module, _ = _parts(trainer)
        assert module.summary is not None
        return module.summary
