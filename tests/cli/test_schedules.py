"""Schedules that need the number of steps of a training, when it resumes."""

from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf

from lightning_vfe.cli import main

SMOKE = ["fit", "experiment=smoke", "trainer.accelerator=cpu", "logger=csv", "run_dir=run"]
COOLDOWN = ["optimizer.cooldown=1.0", "optimizer.decay_steps=1e9", "optimizer.wavefunction_max_norm=1e-6"]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def updates() -> list[float]:
    """Length of the update of psi in each step."""
    return pd.read_csv("run/metrics.csv")["wavefunction_update"].tolist()


def test_a_longer_training_cools_down_at_its_new_end() -> None:
    """Step t of T has the length max_norm^(1/2) (T - t) / (T + 1), with T of the command that makes it.

    The checkpoint holds the length of the next step, which is the first of the resumed command.
    """
    assert main([*SMOKE, *COOLDOWN, "trainer.max_steps=2"]) == 0
    assert main(["fit", "run_dir=run", "ckpt_path=last", "trainer.max_steps=4"]) == 0
    assert updates() == pytest.approx([1e-3 * share for share in (2 / 3, 1 / 3, 1 / 3, 1 / 5)], rel=1e-4)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ([], "optimizer.num_steps"),
        (["optimizer=adamw_cosine"], "optimizer.scheduler.lr_lambda.num_steps"),
    ],
)
def test_the_config_of_a_run_keeps_its_references(words: list[str], key: str) -> None:
    assert main([*SMOKE, *words, "trainer.max_steps=1"]) == 0
    config = OmegaConf.load("run/config.yaml")
    assert OmegaConf.select(config, key) == 1
    config.trainer.max_steps = 7
    assert OmegaConf.select(config, key) == 7
