"""The schedule of the step length: slow decay, and a cooldown at the end."""

import math

import pytest
import torch

from lightning_vfe.training.variational.optimizers import Adam, Decay, NaturalGradient


def test_without_cooldown_the_factor_is_half_after_decay_steps() -> None:
    decay = Decay(100.0)
    assert [decay.factor(step) for step in (0, 100, 300)] == pytest.approx([1.0, 0.5, 0.25])
    assert Decay(math.inf).factor(10**6) == 1.0


def test_the_cooldown_ends_at_zero_after_the_last_step() -> None:
    """With T steps, of which a share c cools down, step t is multiplied by min(1, (T - t) / (c T + 1))."""
    decay = Decay(math.inf, cooldown=0.4, num_steps=10)
    found = [decay.factor(step) for step in range(10)]
    assert found == pytest.approx([1, 1, 1, 1, 1, 1, 4 / 5, 3 / 5, 2 / 5, 1 / 5])
    assert Decay(5.0, 0.4, 10).factor(8) == pytest.approx(found[8] / (1 + 8 / 5))


def test_no_step_of_a_longer_training_is_zero() -> None:
    """A finished training may go on for a few steps, as after a last step that was interrupted."""
    decay = Decay(math.inf, cooldown=0.4, num_steps=10)
    assert decay.factor(10) == decay.factor(99) == pytest.approx(1 / 5)


@pytest.mark.parametrize("settings", [NaturalGradient, Adam])
def test_optimizers_take_it(settings: type[NaturalGradient] | type[Adam]) -> None:
    network = torch.nn.Linear(2, 1)
    made = settings(decay_steps=math.inf, cooldown=0.5, num_steps=2).configure(network, None)
    schedule = made["lr_scheduler"]["scheduler"]
    first = schedule.get_last_lr()[0]
    made["optimizer"]._opt_called = True  # steps are not what is tested
    schedule.step()
    assert schedule.get_last_lr()[0] == pytest.approx(first / 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decay_steps": 0.0}, "decay_steps = 0.0 must be positive"),
        ({"cooldown": -0.1, "num_steps": 5}, "cooldown = -0.1 must be from 0 to 1"),
        ({"cooldown": 1.1, "num_steps": 5}, "cooldown = 1.1 must be from 0 to 1"),
        ({"cooldown": 0.3}, "cooldown = 0.3 needs to know the last step of the training; set trainer.max_steps"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, float], message: str) -> None:
    for optimizer in (NaturalGradient, Adam):
        with pytest.raises(ValueError, match=message):
            optimizer(**settings)  # type: ignore[arg-type]
