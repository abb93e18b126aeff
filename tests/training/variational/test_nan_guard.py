"""Broken numbers: the way back to the last good state, its bounds, and what is never saved."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from lightning_vfe.training.run.run_folder import LastCheckpoint
from lightning_vfe.training.variational.module import VariationalFreeEnergy
from lightning_vfe.training.variational.nan_guard import LEAST_RECENT, STEP_FACTOR, NaNGuard, is_absurd
from lightning_vfe.training.variational.optimizers import Adam, NaturalGradient
from tests.helpers.trainers import quiet_trainer
from tests.helpers.variational import assert_equal, build_run

MAX_NORM = 1e-3


class Break(L.Callback):
    """Breaks the walkers, or the parameters, before some steps."""

    def __init__(self, event: Callable[[VariationalFreeEnergy], None], *at: int) -> None:
        self.event, self.at = event, at

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if trainer.global_step in self.at:
            assert isinstance(pl_module, VariationalFreeEnergy)
            self.event(pl_module)


def electron(module: VariationalFreeEnergy) -> None:
    """One coordinate of one electron."""
    assert module.state.walkers is not None
    module.state.walkers["electrons"][0, 0, 0, 0] = torch.nan


def width(module: VariationalFreeEnergy) -> None:
    """The width of the electrons' moves: they stand still from then on."""
    assert module.state.walkers is not None
    module.state.walkers.log_widths["electrons"] = torch.tensor(torch.nan)


def parameter(module: VariationalFreeEnergy) -> None:
    """As after an absurd update."""
    with torch.no_grad():
        next(iter(module.wavefunction.parameters())).fill_(torch.nan)


def run(
    folder: Path,
    steps: int,
    event: Callable[[VariationalFreeEnergy], None],
    *at: int,
    optimizer: Any = None,
    resume: bool = False,
) -> tuple[VariationalFreeEnergy, NaNGuard, list[str], L.Trainer]:
    """A run that saves every third step, and returns after two broken ones."""
    module, datamodule = build_run(optimizer=optimizer or NaturalGradient())
    guard, lines = NaNGuard(patience=2, max_returns=2), list[str]()
    guard.say = lines.append
    trainer = quiet_trainer(steps, Break(event, *at), guard, LastCheckpoint(folder, every_n_steps=3), devices=1)
    trainer.fit(module, datamodule=datamodule, ckpt_path=str(folder / "last.ckpt") if resume else None)
    return module, guard, lines, trainer


def saved(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "last.ckpt", weights_only=True)


@pytest.mark.parametrize("event", [electron, width, parameter])
@pytest.mark.parametrize("optimizer", [NaturalGradient(), Adam()])
def test_the_run_returns_to_its_last_save(tmp_path: Path, event: Any, optimizer: Any) -> None:
    module, guard, lines, trainer = run(tmp_path, 12, event, 7, optimizer=optimizer)
    assert guard.num_returns == 1
    (line,) = lines
    assert "back to the state of step 6, with updates 4 times shorter (return 1 of 2)" in line
    assert math.isfinite(module.last_free_energy)
    content = saved(tmp_path)
    assert content["global_step"] == 12
    # 7 and 8, or 8 and 9 where the first broken batch is the next one, were for nothing
    assert 6 + 12 - 10 <= int(module.trained_steps) <= 6 + 12 - 8
    for value in [*content["state_dict"].values(), *content["walkers"]["log_widths"].values()]:
        assert bool(value.isfinite().all())
    assert bool(content["walkers"]["fields"]["electrons"].isfinite().all())
    groups = trainer.optimizers[0].param_groups
    if isinstance(optimizer, NaturalGradient):
        assert all(group["max_norm"] == pytest.approx(MAX_NORM * STEP_FACTOR**2) for group in groups)
    else:
        assert all(group["initial_lr"] == pytest.approx(3e-3 * STEP_FACTOR) for group in groups)
        assert all(0.9 < group["lr"] / group["initial_lr"] < 1 for group in groups)


def test_a_resumed_run_keeps_its_shorter_updates(tmp_path: Path) -> None:
    run(tmp_path / "straight", 15, parameter, 4)
    run(tmp_path / "broken", 12, parameter, 4)
    run(tmp_path / "broken", 15, parameter, resume=True)
    first, second = saved(tmp_path / "straight"), saved(tmp_path / "broken")
    for part in ("state_dict", "optimizer_states", "walkers", "global_step"):
        assert_equal(first[part], second[part], part)


def test_the_number_of_returns_is_bounded_and_good_saves_stay(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="absurd in 2 steps in a row, after 2 returns to a good state"):
        run(tmp_path, 60, parameter, *range(7, 60))
    files = sorted(file.name for file in tmp_path.iterdir())
    assert files == ["last.ckpt", "step-00000003.ckpt", "step-00000006.ckpt"]
    assert saved(tmp_path)["global_step"] == 6


@pytest.mark.parametrize("event", [electron, width])
def test_a_run_that_ends_broken_is_no_success(tmp_path: Path, event: Any) -> None:
    with pytest.raises(FloatingPointError, match="the last step of the run was not finite or absurd, and is not saved"):
        run(tmp_path, 8, event, 6)
    assert saved(tmp_path)["global_step"] == 6


def test_a_chain_that_never_moved_says_which(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="width of the moves of electrons is not a number in 2 steps"):
        run(tmp_path, 8, width, *range(8))


def test_max_returns_must_not_be_negative() -> None:
    with pytest.raises(ValueError, match="max_returns = -1 must not be negative"):
        NaNGuard(max_returns=-1)


def test_absurd_steps_do_not_rotate_the_good_saves_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F stays finite, but lies orders of magnitude above that of the steps before."""
    real = VariationalFreeEnergy.training_step

    def jump(self: VariationalFreeEnergy, batch: Any, batch_idx: int) -> Any:
        loss = real(self, batch, batch_idx)
        self.last_free_energy += 1e6 if self.trainer.global_step >= 8 else 0.0
        return loss

    monkeypatch.setattr(VariationalFreeEnergy, "training_step", jump)
    with pytest.raises(FloatingPointError, match="F was absurd in 2 steps in a row, after 2 returns to a good state"):
        run(tmp_path, 60, lambda _: None)
    assert saved(tmp_path)["global_step"] == 6


@pytest.mark.parametrize(
    ("free_energy", "expected"), [(-1.1, False), (-1e9, False), (50.0, False), (101.0, True), (float("nan"), True)]
)
def test_what_is_absurd(free_energy: float, expected: bool) -> None:
    recent = [-1.0, -1.01, -0.99, -1.02, -0.98]
    assert is_absurd(free_energy, recent) is expected
    assert is_absurd(free_energy, recent[: LEAST_RECENT - 1]) is (free_energy != free_energy)
    noisy = [each + 10.0 * number for number, each in enumerate(recent)]
    assert not is_absurd(101.0, noisy), "in units of the scatter"
