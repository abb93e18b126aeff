"""What runs beside the steps: a guard against broken numbers, the progress bar, the summary."""

from __future__ import annotations

import sys
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.utilities import rank_zero_only
from typing_extensions import override

from lightning_vfe.analysis.figures import save_figures
from lightning_vfe.errors import SettingError, one_line
from lightning_vfe.optim.natural_gradient import NaturalGradientOptimizer
from lightning_vfe.training.run.messages import Reporter
from lightning_vfe.training.variational.module import VariationalFreeEnergy
from lightning_vfe.training.variational.result_table import result_tables
from lightning_vfe.training.variational.summary import TestResult

ACCEPTANCES = {"acc_p": "proton_acceptance", "acc_d": "delayed_acceptance", "acc_e": "electron_acceptance"}
"""Accepted fractions behind the progress bar, where a run has them."""
MOST_STATES = 3
"""State points whose F fits behind the progress bar."""


class NaNGuard(Callback):
    """Skips an update whose gradient is not finite, so that the parameters stay those of the last good step.

    Args:
        patience: number of such steps in a row that ends the run.

    Raises:
        FloatingPointError: patience is used up.
        ValueError: patience is below 1.
    """

    def __init__(self, patience: int = 10) -> None:
        if patience < 1:
            raise SettingError("patience", patience, "must be at least 1")
        self.patience = patience
        self.num_skipped = 0
        self._in_a_row = 0
        self._seen = 0  # updates that the natural gradient had skipped at the last look

    @override
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

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the updates that the natural gradient has skipped."""
        for optimizer in trainer.optimizers:
            if isinstance(optimizer, NaturalGradientOptimizer):
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
    """F +- error, E, S, P over the last steps, with acceptances and R-hat. For watching: results come from `test`.

    With several state points F of the first three of them.
    """

    def __init__(self) -> None:
        # Where nobody watches, a line now and then is enough.
        super().__init__(refresh_rate=1 if sys.stdout.isatty() else 50)

    def get_metrics(
        self, trainer: L.Trainer, pl_module: L.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """What stands behind the bar."""
        if not isinstance(pl_module, VariationalFreeEnergy) or not pl_module.recent:
            return {}
        shown: dict[str, int | str | float | dict[str, float]] = dict(recent_estimates(pl_module))
        for label, name in ACCEPTANCES.items():
            if name in trainer.callback_metrics:
                shown[label] = f"{float(trainer.callback_metrics[name]):.2f}"
        return shown


def recent_estimates(module: VariationalFreeEnergy) -> dict[str, str]:
    """F +- error, E, S, P and R-hat of the last steps, of the walkers of this process; all finite, or left out."""
    state, series = module.state, torch.stack(list(module.recent), dim=1)  # (terms, steps, samples)
    series = series[:, torch.isfinite(series).all(dim=-1).all(dim=0)]
    several = state.strata.num_states > 1
    if series.shape[1] == 0:
        return dict.fromkeys(("F",) if several else ("F", "E", "S", "P", "R-hat"), "nan")
    stratum = state.independent_strata(state.current()).cpu()
    found = [state.strata.estimate(term, stratum) for term in series]  # by term, then by state point
    points = list(zip(state.strata.points, found[0], strict=True))
    if several:
        return {f"F({point.rs:g},{point.temperature_kelvin:g})": _f(each) for point, each in points[:MOST_STATES]}
    free_energy, energy, entropy, pressure = (term[0] for term in found)
    shown = {"F": _f(free_energy), "E": f"{energy.value:.4f}", "S": f"{entropy.value:.2f}"}
    return shown | {"P": f"{pressure.value:.0f}", "R-hat": f"{free_energy.r_hat:.2f}"}


def _f(free_energy: Any) -> str:
    return f"{free_energy.value:.4f}+-{free_energy.error:.4f}"


class WriteSummary(Reporter):
    """After `test`: summary.json, pair_correlation.csv and the figures in the run folder, and the table as a message.

    `fit` ends with the figure of its curves, `validate` with the table only.

    Args:
        run_dir: the run folder.
    """

    @override
    @rank_zero_only
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Files, figures and table."""
        result = _result(pl_module)
        result.write(self.run_dir)
        self.messages += result_tables(result)
        self._draw()

    @override
    @rank_zero_only
    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Figure of the training curves, where there is a run folder with curves to draw."""
        if (self.run_dir / "config.yaml").is_file() and (self.run_dir / "metrics.csv").is_file():
            self._draw()

    def _draw(self) -> None:
        if not (self.run_dir / "config.yaml").is_file():
            return
        try:
            self.messages += [f"figure: {file}" for file in save_figures(self.run_dir)]
        except (ValueError, OSError) as error:  # a file that was damaged meanwhile must not take the result along
            self.messages.append(f"no figures: {one_line(error)}")

    @override
    @rank_zero_only
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Table."""
        self.messages += result_tables(_result(pl_module))


def _result(module: L.LightningModule) -> TestResult:
    if not isinstance(module, VariationalFreeEnergy) or module.result is None:
        raise TypeError(f"WriteSummary works with VariationalFreeEnergy, not with {type(module).__name__}")
    return module.result
