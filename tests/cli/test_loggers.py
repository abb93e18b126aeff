"""Loggers by one word of the config: each composes, and one whose package is missing says so in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_vfe.cli import main
from lightning_vfe.workflows.compose import compose_config
from lightning_vfe.workflows.overrides import group_options, parse
from lightning_vfe.workflows.schema import check_types

SMALL = ["experiment=smoke", "trainer.accelerator=cpu"]


class Missing:
    """Stands for a package that Lightning does not find."""

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        return "Requirement not met"


@pytest.mark.parametrize("name", group_options()["logger"])
def test_every_logger_composes_and_keeps_metrics_csv(name: str, tmp_path: Path) -> None:
    config = compose_config(parse([*SMALL, f"logger={name}", f"run_dir={tmp_path}"]))
    check_types(config)
    assert next(iter(config.logger)) == "metrics"
    assert set(config.logger) == {"metrics"} | ({name} - {"csv"})


@pytest.mark.parametrize(
    ("name", "place"), [("wandb", "wandb._WANDB_AVAILABLE"), ("mlflow", "mlflow._MLFLOW_AVAILABLE")]
)
def test_a_missing_package_ends_in_one_line(
    name: str, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"lightning.pytorch.loggers.{place}", Missing())
    if name == "mlflow":
        monkeypatch.setattr("lightning.pytorch.loggers.mlflow._MLFLOW_SKINNY_AVAILABLE", Missing(), raising=False)
    assert main(["fit", *SMALL, f"logger={name}", f"run_dir={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "needs a package that is not installed" in error
    assert error.endswith("install it, or choose logger=csv\n")
    assert not (tmp_path / "run").exists()
