"""Settings of an optimizer that are changed for a resumed run take effect; unchanged ones change no number."""

import functools

import lightning as L
import pytest
import torch
from torch.optim.lr_scheduler import ExponentialLR, LambdaLR, ReduceLROnPlateau
from torch.utils.data import DataLoader

from lightning_vfe.training.resumed_optimizer import ResumedOptimizer
from lightning_vfe.training.torch_optimizer import TorchOptimizer, half_cosine, step_plateau
from tests.helpers.trainers import quiet_trainer


class Line(L.LightningModule):
    """y = w x, fitted to y = 1."""

    def __init__(self, settings: TorchOptimizer) -> None:
        super().__init__()
        self.weight, self.settings = torch.nn.Parameter(torch.zeros(1)), settings

    def training_step(self, batch, batch_idx):
        return ((self.weight * batch - 1.0) ** 2).mean()

    def on_train_batch_end(self, *args):
        step_plateau(self, 1.0)

    def configure_optimizers(self):
        return self.settings.configure(self, validation_loss="loss")


def settings(scheduler=None, **changes) -> TorchOptimizer:
    optimizer = functools.partial(torch.optim.AdamW, **({"lr": 0.1, "weight_decay": 0.0} | changes))
    return TorchOptimizer(optimizer, scheduler)


def fit(made: TorchOptimizer, max_steps: int, ckpt_path=None, callbacks=True):
    """A fit of some steps; returns the trainer and the parameter at its end."""
    torch.manual_seed(0)
    module, data = Line(made), DataLoader(torch.ones(1))
    trainer = quiet_trainer(max_steps, *([ResumedOptimizer()] if callbacks else []))
    trainer.fit(module, data, ckpt_path=ckpt_path)
    return trainer, module.weight.item()


EXPONENTIAL = functools.partial(ExponentialLR, gamma=0.9)
COSINE = functools.partial(LambdaLR, lr_lambda=functools.partial(half_cosine, num_steps=20, final_fraction=0.1))
PLATEAU = functools.partial(ReduceLROnPlateau, factor=0.5, patience=1)


@pytest.fixture
def saved(tmp_path, request):
    """Checkpoint of four steps with a scheduler."""
    trainer, _ = fit(settings(request.param), 4)
    trainer.save_checkpoint(tmp_path / "four.ckpt")
    return tmp_path / "four.ckpt"


def resumed(saved, made, max_steps=4):
    """Optimizer and scheduler of a run that has been resumed, before any further step."""
    trainer, _ = fit(made, max_steps + 1, saved)
    return trainer.optimizers[0], [config.scheduler for config in trainer.lr_scheduler_configs]


@pytest.mark.parametrize(
    ("saved", "scheduler"), [(s, s) for s in (None, EXPONENTIAL, COSINE, PLATEAU)], indirect=["saved"]
)
def test_an_unchanged_run_resumes_to_the_same_number(saved, scheduler):
    _, through = fit(settings(scheduler), 9)
    _, resumed_weight = fit(settings(scheduler), 9, saved)
    assert resumed_weight == through


@pytest.mark.parametrize(
    ("saved", "scheduler", "decayed"),
    [
        (None, None, 1.0),
        (EXPONENTIAL, EXPONENTIAL, 0.9**5),
        (COSINE, COSINE, half_cosine(5, 20, 0.1)),
        (PLATEAU, PLATEAU, 0.25),
    ],
    indirect=["saved"],
)
def test_a_new_rate_scales_the_schedule(saved, scheduler, decayed):
    optimizer, _ = resumed(saved, settings(scheduler, lr=0.01, weight_decay=0.5))
    (group,) = optimizer.param_groups
    assert group["lr"] == pytest.approx(0.01 * decayed, rel=1e-12)
    assert group["weight_decay"] == 0.5


def test_a_rate_after_a_run_without_one(tmp_path):
    """Nothing can be scaled: the rate is that of the settings, and decays from there."""
    trainer, _ = fit(settings(EXPONENTIAL, lr=0.0), 4)
    trainer.save_checkpoint(tmp_path / "four.ckpt")
    optimizer, _ = resumed(tmp_path / "four.ckpt", settings(EXPONENTIAL, lr=0.01))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * 0.9, rel=1e-12)


@pytest.mark.parametrize("saved", [EXPONENTIAL], indirect=True)
def test_a_new_rate_after_a_checkpoint_of_an_earlier_version(saved):
    """It does not hold the settings with which the optimizer was built."""
    content = torch.load(saved)
    content["callbacks"].pop("ResumedOptimizer")
    torch.save(content, saved)
    optimizer, _ = resumed(saved, settings(EXPONENTIAL, lr=0.01))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * 0.9**5, rel=1e-12)


@pytest.mark.parametrize("saved", [EXPONENTIAL], indirect=True)
def test_new_settings_of_a_scheduler_and_of_moments(saved):
    optimizer, (scheduler,) = resumed(saved, settings(functools.partial(ExponentialLR, gamma=0.5), betas=(0.5, 0.9)))
    assert scheduler.gamma == 0.5
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.9)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.9**4 * 0.5, rel=1e-12)
