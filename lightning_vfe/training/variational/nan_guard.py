"""A guard against broken numbers: updates that are left out, and a way back to the last good state."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from lightning_vfe.errors import SettingError
from lightning_vfe.optim.natural_gradient import NaturalGradientOptimizer
from lightning_vfe.training.variational.snapshot import Snapshot, shorten, walkers_of

STEP_FACTOR = 0.25
"""Length of an update after a return, in units of that before."""
KEPT = 2
"""Good states to return to: should the newer one be a bad start, there is one more."""
RECENT = 20
"""Good steps that the next F is compared with."""
LEAST_RECENT = 5
JUMP = 1000.0
"""F is absurd where it lies so many deviations above the recent ones; a deviation is at least SHARE of their size."""
SHARE = 0.1
ADVICE = (
    "lower optimizer.wavefunction_max_norm and optimizer.flow_max_norm (with optimizer=adam the learning rates), or "
    "take an earlier checkpoint"
)


class NaNGuard(Callback):
    """Skips an update whose gradient is not finite, so that the parameters stay those of the last good step.

    A step is broken where F, or the width of a move, is not finite, or where F has jumped up by orders of magnitude
    (`is_absurd`). No broken state is saved. Where `patience` updates
    in a row are skipped, or steps broken, networks, optimizer and walkers return to the last save, or to the start of
    this `fit`; the random numbers and the count of the steps continue, and updates are shorter from then on.

    Attributes:
        is_broken: the present state must not be saved.
        say: called with a line at each return.

    Args:
        patience: number of such steps in a row that leads to a return.
        max_returns: number of returns after which the next one ends the run.

    Raises:
        FloatingPointError: no return is left or possible, or `fit` ends with a broken step.
        ValueError: patience is below 1, or max_returns negative.
    """

    def __init__(self, patience: int = 10, max_returns: int = 3) -> None:
        if patience < 1:
            raise SettingError("patience", patience, "must be at least 1")
        if max_returns < 0:
            raise SettingError("max_returns", max_returns, "must not be negative", "3 is usual")
        self.patience, self.max_returns = patience, max_returns
        self.say: Callable[[str], None] = lambda _line: None
        self.is_broken = False
        self.num_skipped = 0
        self.num_returns = 0
        self._in_a_row = 0
        self._seen = 0  # updates that the natural gradient had skipped at the last look
        self._has_skipped = False  # the update of this step, by this guard itself
        self._good: deque[Snapshot] = deque(maxlen=KEPT)
        self._has_returned = False  # to the newest of them
        self._has_good_step = False
        self._recent: deque[float] = deque(maxlen=RECENT)  # F per atom of good steps

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin; a resumed natural gradient has the settings of the config, to be shortened as before."""
        self._good.clear()
        self._recent.clear()
        self.is_broken = self._has_good_step = self._has_returned = False
        for optimizer in trainer.optimizers:
            if isinstance(optimizer, NaturalGradientOptimizer):
                shorten(optimizer, STEP_FACTOR**self.num_returns)

    @override
    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Keep the start, with equilibrated walkers."""
        if not self._good:
            self._keep(trainer, pl_module)

    @override
    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Drop all gradients if one is not finite (DDP has averaged them, so all processes decide alike)."""
        parameters = [p for p in pl_module.parameters() if p.grad is not None]
        if not parameters:
            return  # the natural gradient skips bad updates by itself, see on_train_batch_end
        total = sum(p.grad.sum() for p in parameters if p.grad is not None)
        self._has_skipped = not bool(torch.isfinite(torch.as_tensor(total)))
        if self._has_skipped:
            for parameter in parameters:
                parameter.grad = None  # optimizers leave parameters without a gradient alone

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the step, and return where that many in a row were bad."""
        skipped, self._has_skipped = int(self._has_skipped), False
        for optimizer in trainer.optimizers:
            if isinstance(optimizer, NaturalGradientOptimizer):
                skipped, self._seen = optimizer.num_skipped - self._seen, optimizer.num_skipped
        self.num_skipped += skipped
        free_energy = getattr(pl_module, "last_free_energy", 0.0)
        self.is_broken = is_absurd(free_energy, self._recent) or bool(_broken_widths(pl_module))
        if not self.is_broken:
            self._recent.append(free_energy)
        self._in_a_row = self._in_a_row + 1 if skipped or self.is_broken else 0
        self._has_good_step |= self._in_a_row == 0
        if self._in_a_row < self.patience:
            return
        if not self._has_good_step or self.num_returns == self.max_returns:
            raise FloatingPointError(self._complaint(pl_module))
        self._return(trainer, pl_module)

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A run whose last step is broken has no result; one that was stopped may still find its way."""
        self._good.clear()
        if self.is_broken and not trainer.should_stop:
            raise FloatingPointError(f"the last step of the run was not finite or absurd, and is not saved: {ADVICE}")

    @override
    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """What is saved is good."""
        if trainer.training and not self.is_broken:
            self._keep(trainer, pl_module)

    def _keep(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._good.append(Snapshot.take(trainer, module))
        self._has_returned = False

    def _return(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self._has_returned and len(self._good) > 1:
            self._good.pop()
        self._good[-1].restore(trainer, module)
        self.num_returns += 1
        self._in_a_row, self._has_returned, self.is_broken = 0, True, True
        for optimizer in trainer.optimizers:
            shorten(optimizer, STEP_FACTOR)
            self._seen = getattr(optimizer, "num_skipped", 0)
        for each in trainer.lr_scheduler_configs:
            if hasattr(each.scheduler, "base_lrs") and not isinstance(trainer.optimizers[0], NaturalGradientOptimizer):
                each.scheduler.base_lrs = [rate * STEP_FACTOR for rate in each.scheduler.base_lrs]
        if trainer.is_global_zero:
            goal = f"back to the state of step {self._good[-1].step}, with updates {1 / STEP_FACTOR:g} times shorter"
            count = f"return {self.num_returns} of {self.max_returns}"
            self.say(f"\n{self.patience} steps in a row were not finite or absurd: {goal} ({count})")

    def _complaint(self, module: L.LightningModule) -> str:
        returns = f", after {self.num_returns} returns to a good state" if self.num_returns else ""
        if widths := _broken_widths(module):
            what = f"the width of the moves of {' and '.join(widths)} is not a number"
            return f"{what} in {self._in_a_row} steps in a row{returns}: take an earlier checkpoint"
        what = f"updates were not finite or F was absurd in {self._in_a_row} steps in a row{returns}"
        return f"{what}; the parameters are those of the last good step: {ADVICE}"

    def state_dict(self) -> dict[str, Any]:
        """Counts, for an exact resume."""
        counts = {"num_skipped": self.num_skipped, "in_a_row": self._in_a_row, "seen": self._seen}
        return counts | {"num_returns": self.num_returns}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Counts of the checkpoint."""
        self.num_skipped, self._in_a_row = state_dict["num_skipped"], state_dict["in_a_row"]
        self._seen, self.num_returns = state_dict["seen"], state_dict.get("num_returns", 0)


def is_absurd(free_energy: float, recent: Sequence[float]) -> bool:
    """Whether F is not finite, or far above the F of recent steps. A fall is no reason: training makes F fall.

    Args:
        free_energy: F per atom in Ha.
        recent: of good steps before; fewer than LEAST_RECENT tell nothing.
    """
    if not math.isfinite(free_energy):
        return True
    if len(recent) < LEAST_RECENT:
        return False
    middle = statistics.median(recent)
    deviation = statistics.median(abs(each - middle) for each in recent)
    return free_energy - middle > JUMP * max(deviation, SHARE * abs(middle))


def _broken_widths(module: L.LightningModule) -> list[str]:
    """Whose moves have a width that is not a number; it is equal on all processes."""
    walkers = walkers_of(module)
    widths = {} if walkers is None else walkers.log_widths
    return [name for name, width in widths.items() if not bool(torch.isfinite(width))]
