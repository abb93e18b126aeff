"""The variational free energy as a LightningModule."""

from __future__ import annotations

from collections import deque
from typing import Any

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from typing_extensions import override

from lightning_vfe.errors import SettingError, one_line
from lightning_vfe.models.wavefunction.paired import log_psi_of_walkers
from lightning_vfe.optim.collectives import Collectives
from lightning_vfe.optim.solve import ScoreBlock
from lightning_vfe.state.batch import Batch, Sample
from lightning_vfe.state.variational_state import VariationalState
from lightning_vfe.training.variational.comparison import (
    flow_groups,
    flow_scale,
    same_protons,
    strata_groups,
    wavefunction_scale,
)
from lightning_vfe.training.variational.ending import Ending
from lightning_vfe.training.variational.measurement import Measurement
from lightning_vfe.training.variational.objective import flow_loss, wavefunction_loss
from lightning_vfe.training.variational.optimizers import NaturalGradient, OptimizerSettings
from lightning_vfe.training.variational.score_blocks import flow_block, wavefunction_block
from lightning_vfe.training.variational.step_values import mean_free_energy, step_values
from lightning_vfe.training.variational.summary import TestResult
from lightning_vfe.training.variational.system_entry import check_same_system, system_entry

RECENT_STEPS = 50
WATCHED = ("free_energy_per_atom", "energy_per_atom", "entropy_per_atom", "pressure_gpa")
"""Terms of the last RECENT_STEPS steps that are kept for the progress bar."""


class VariationalFreeEnergy(L.LightningModule):
    r"""Minimises F = E_{x~p}[E_{r~|psi_x|^2} E_loc(x, r) + kT ln p(x)] + momenta over flow and wavefunction together.

    With several state points the objective is a mean over them. The gradient of the flow takes the energies of each
    state in units of its kT, that of the wavefunction in units of 1/rs^2, so that no state dominates. With one state
    point this has no effect.

    Args:
        state: networks and walkers.
        optimizer: the optimizer of both networks; None is the natural gradient.
        clip_width: gradients use energies clipped at this many mean absolute deviations around the median.
        momentum_points: electrons that `test` displaces in each sample to measure n(k); 0: no n(k).

    Raises:
        ValueError: clip_width is not positive, or momentum_points is negative.
    """

    trained_steps: Tensor

    def __init__(
        self,
        state: VariationalState,
        optimizer: OptimizerSettings | None = None,
        clip_width: float = 5.0,
        momentum_points: int = 1,
    ) -> None:
        super().__init__()
        if not clip_width > 0:
            raise SettingError("clip_width", clip_width, "must be positive", "5 is the usual choice")
        if momentum_points < 0:
            reason = "must be 0 or a positive number of electrons"
            raise SettingError("momentum_points", momentum_points, reason, "0 leaves n(k) out")
        self.state = state
        self.wavefunction, self.proton_density = state.wavefunction, state.proton_density
        self.optimizer_settings = optimizer or NaturalGradient()
        # The natural gradient takes scores instead of the derivative of a loss.
        self.automatic_optimization = not self.optimizer_settings.uses_scores
        self.clip_width, self.momentum_points = clip_width, momentum_points
        self.register_buffer("trained_steps", torch.zeros((), dtype=torch.int64))
        self.measurement = Measurement(state)
        self.last_free_energy = 0.0  # per atom in Ha, of the last step, on all processes
        self.ending = Ending({}, 1)
        self.result: TestResult | None = None
        self.recent: deque[Tensor] = deque(maxlen=RECENT_STEPS)  # (terms, samples) of this process

    # --- steps ------------------------------------------------------------------------------------------------------

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """The number whose gradient is that of F, or one natural-gradient step; the values go to the loggers."""
        sample = self.state.energies(batch)
        self.trained_steps += 1
        loss = None
        if self.automatic_optimization:
            loss = self.loss(batch, sample)
        else:
            self._update(batch, sample)
        values = step_values(self.state, batch, sample) | batch.report
        self.log_dict(values, batch_size=1)
        self.last_free_energy = mean_free_energy(self.state, values)
        self._watch(sample)
        return loss

    def _watch(self, sample: Sample) -> None:
        self.recent.append(torch.stack([sample.terms[name] for name in WATCHED if name in sample.terms]).cpu())

    def _update(self, batch: Batch, sample: Sample) -> None:
        """One step of the natural gradient."""
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        assert isinstance(optimizer, LightningOptimizer)
        assert isinstance(schedule, LRScheduler)
        optimizer.step(closure=lambda: self.score_blocks(batch, sample))
        schedule.step()
        self.log_dict(optimizer.optimizer.report, batch_size=1)  # type: ignore[attr-defined]

    def score_blocks(self, batch: Batch, sample: Sample) -> dict[str, ScoreBlock]:
        """Scores and clipped energies of the blocks with trainable parameters."""
        total, density, collectives = sample.electronic.total, self.proton_density, Collectives()
        shared = self.clip_width, collectives.gather, getattr(self.optimizer_settings, "score_chunk", None)
        blocks, groups = {}, strata_groups(self.state, batch)
        if _learns(self.wavefunction):
            walkers = collectives.rank * len(total) + torch.arange(len(total), device=total.device)
            same, scale = same_protons(self.state, batch), wavefunction_scale(self.state, batch)
            blocks["wavefunction"] = wavefunction_block(
                self.wavefunction, batch, total, walkers, groups, same, scale, *shared
            )
        if density is not None and _learns(density):
            groups, scale = flow_groups(self.state, batch), flow_scale(self.state, batch)
            blocks["flow"] = flow_block(density, batch, total.real.mean(1), groups, scale, *shared)
        return blocks

    def loss(self, batch: Batch, sample: Sample) -> Tensor:
        """Score-function objective of both blocks, see training/variational/objective.py."""
        log_psi = log_psi_of_walkers(self.wavefunction, batch.protons, batch.electrons, batch.states)
        total, shared = sample.electronic.total, (self.clip_width, Collectives().gather)
        groups, same = strata_groups(self.state, batch), same_protons(self.state, batch)
        loss = wavefunction_loss(log_psi, total, *shared, groups, same, wavefunction_scale(self.state, batch))
        if self.proton_density is not None:
            log_prob, kT = self.proton_density.log_prob(batch.protons, batch.states), batch.states.kT
            groups, scale = flow_groups(self.state, batch), flow_scale(self.state, batch)
            loss = loss + flow_loss(log_prob, total.real.mean(1), kT, *shared, groups, scale)
        return loss

    # --- measuring with frozen parameters --------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Start measuring."""
        self.measurement.reset()
        self.recent.clear()

    def on_test_epoch_start(self) -> None:
        """Start measuring, until the errors of the datamodule or the number of its steps are reached.

        Raises:
            SettingError: errors that cannot be reached.
        """
        self.measurement.reset(self.momentum_points)
        self.recent.clear()
        self.trainer.should_stop = False
        datamodule = self._datamodule
        self.ending = Ending(getattr(datamodule, "wanted_errors", {}), getattr(datamodule, "test_steps", 1))
        self.ending.check(self.measurement)

    @override
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure with frozen parameters."""
        self._measure(batch)

    @override
    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure with frozen parameters, and stop if the errors are small enough."""
        self._measure(batch)
        self.ending.look(self.measurement, self.trainer)

    def _measure(self, batch: Batch) -> None:
        sample = self.state.energies(batch)
        self.measurement.add(batch, sample)
        self._watch(sample)

    def on_validation_epoch_end(self) -> None:
        """Compute the result from the samples of all processes."""
        self.measurement.settling = getattr(self._datamodule, "settling", None)
        self.result = self.measurement.result(int(self.trained_steps), steps_key=self._steps_key())

    def on_test_epoch_end(self) -> None:
        """Compute the result from the samples of all processes."""
        self.measurement.settling = getattr(self._datamodule, "settling", None)
        wanted, key = self.ending.wanted, self._steps_key()
        info = self.measurement.info(self.ending.ended_by or key, wanted)
        self.result = self.measurement.result(int(self.trained_steps), key, info)

    @property
    def _datamodule(self) -> Any:
        """Where the batches come from; Lightning has none where a loader alone was given."""
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def _steps_key(self) -> str:
        """The setting that says how many steps are measured; after a target_error the least number of them."""
        if self._trainer is not None and self.trainer.state.fn == "validate":
            return "datamodule.validation_steps"
        is_cut = self.ending.wanted and self.ending.ended_by != "target_error"
        return f"datamodule.{'max_test_steps' if is_cut else 'test_steps'}"

    def configure_optimizers(self) -> Any:
        """Both blocks in one optimizer."""
        return self.optimizer_settings.configure(self.wavefunction, self.proton_density)

    # --- checkpoints --------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write down the walkers, which system the parameters belong to, and what trained them."""
        checkpoint["walkers"] = self.state.state_dict()
        checkpoint["system"] = system_entry(self.state)
        checkpoint["optimizer"] = type(self.optimizer_settings).__name__

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue the walkers; refuse those of another system, and to resume with another optimizer.

        `validate` and `test` begin the random numbers of the state's seed where it is not that of the checkpoint.

        Raises:
            ValueError: naming the key and both values.
        """
        check_same_system(self.state, checkpoint.get("system", {}))
        own, other = type(self.optimizer_settings).__name__, checkpoint.get("optimizer")
        if self._trainer is not None and self.trainer.state.fn == "fit" and other not in (None, own):
            raise SettingError(
                "optimizer", own, f"but the checkpoint was trained with {other}", "resume with that, or start a new run"
            )
        if self.state.walkers is not None:
            if not checkpoint.get("walkers"):
                path = getattr(self._trainer, "ckpt_path", None) or "the checkpoint"
                raise SettingError("ckpt_path", path, "holds no walkers", "give one that fit wrote")
            try:
                self.state.load_state_dict(checkpoint["walkers"])
            except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
                path = getattr(self._trainer, "ckpt_path", None) or "the checkpoint"
                raise SettingError("ckpt_path", path, f"holds walkers that do not fit: {one_line(error)}") from error
            random = self.state.walkers.random
            self.measurement.training_seed = random.seed
            if self._trainer is not None and self.trainer.state.fn != "fit" and random.seed != self.state.seed:
                random.reseed(self.state.seed)


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
