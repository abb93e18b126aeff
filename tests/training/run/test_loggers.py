"""metrics.csv: rows at once, growing columns, and no row lost or doubled when a run goes on."""

from pathlib import Path

import pandas as pd

from lightning_vfe.training.run.loggers import MetricsCSVLogger


def test_rows_are_written_at_once_and_columns_grow(tmp_path: Path) -> None:
    logger = MetricsCSVLogger(tmp_path / "run")
    logger.log_metrics({"free_energy": 1.5}, step=0)
    assert (tmp_path / "run" / "metrics.csv").read_text().split() == ["step,free_energy", "0,1.5"]
    logger.log_metrics({"entropy": 2.0, "free_energy": 1.0 / 3.0}, step=1)
    logger.log_metrics({"free_energy": 0.25}, step=2)
    table = pd.read_csv(logger.file)
    assert list(table.columns) == ["step", "free_energy", "entropy"]
    assert list(table.free_energy) == [1.5, 1.0 / 3.0, 0.25], "numbers must come back exactly"
    assert table.entropy.isna().tolist() == [True, False, True]


def test_a_second_logger_appends(tmp_path: Path) -> None:
    MetricsCSVLogger(tmp_path).log_metrics({"a": 1.0}, step=0)
    MetricsCSVLogger(tmp_path).log_metrics({"a": 2.0, "b": 3.0}, step=1)
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert list(table.step) == [0, 1]
    assert list(table.a) == [1.0, 2.0]


def test_forget_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    first = MetricsCSVLogger(tmp_path)
    for step in range(5):
        first.log_metrics({"a": float(step)}, step=step)
    second = MetricsCSVLogger(tmp_path)
    second.forget_from(3)
    second.log_metrics({"a": 30.0}, step=3)
    assert list(pd.read_csv(second.file).a) == [0.0, 1.0, 2.0, 30.0]
    MetricsCSVLogger(tmp_path / "none").forget_from(0)  # no file, nothing to forget


def test_a_row_that_a_kill_cut_short_is_forgotten(tmp_path: Path) -> None:
    first = MetricsCSVLogger(tmp_path)
    for step in range(13):
        first.log_metrics({"a": 1000.0 + step}, step=step)
    for tail in ("1", "12,10", "12,1012.0"):
        whole = first.file.read_text().splitlines()[:13]
        first.file.write_text("\n".join([*whole, tail]))
        MetricsCSVLogger(tmp_path).forget_from(13)
        assert list(pd.read_csv(first.file).step) == list(range(12))
