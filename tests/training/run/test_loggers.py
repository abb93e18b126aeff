"""metrics.csv: rows at once, growing columns, and no row lost or doubled when a run goes on."""

import random
import re
from pathlib import Path

import pandas as pd
import pytest

from lightning_vfe.analysis.files import read_metrics
from lightning_vfe.training.run.loggers import MetricsCSVLogger


def test_rows_are_written_at_once_and_columns_grow(tmp_path: Path) -> None:
    logger = MetricsCSVLogger(tmp_path / "run")
    logger.log_metrics({"free_energy": 1.5}, step=0)
    header, row = (tmp_path / "run" / "metrics.csv").read_text().split()
    assert header == "step,free_energy,checksum"
    assert re.fullmatch(r"0,1\.5,crc32-[0-9a-f]{8}", row)
    logger.log_metrics({"entropy": 2.0, "free_energy": 1.0 / 3.0}, step=1)
    logger.log_metrics({"free_energy": 0.25}, step=2)
    table = pd.read_csv(logger.file)
    assert list(table.columns) == ["step", "free_energy", "entropy", "checksum"]
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


def write_table(folder: Path) -> Path:
    """A table whose columns grow, with a step that is not finite and one row of an optimizer alone."""
    logger = MetricsCSVLogger(folder)
    logger.log_metrics({"free_energy": -0.123456789}, step=0)
    logger.log_metrics({"free_energy": float("nan"), "entropy": 1e-17}, step=1)
    logger.log_metrics({"entropy": 3}, step=1)
    MetricsCSVLogger(folder).log_metrics({"pressure": -1.0 / 3.0, "free_energy": -0.25}, step=2)
    return logger.file


def test_every_flipped_bit_of_a_row_is_noticed(tmp_path: Path) -> None:
    file = write_table(tmp_path)
    whole = file.read_bytes()
    table = read_metrics(file)
    assert list(table) == ["step", "free_energy", "entropy", "pressure"], "the checksum is no quantity"
    rng = random.Random(1)
    for place in range(len(whole) - 1):  # a last line without its end is what a kill leaves
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.randrange(8)
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"metrics\.csv (is damaged|has no column)"):
            read_metrics(file)
    file.write_bytes(whole.replace(b"1e-17", b"2e-17"))
    with pytest.raises(ValueError, match=r"is damaged \(line 3 does not have its checksum\); take an older copy"):
        read_metrics(file)


def test_rows_of_an_earlier_version_have_no_checksum(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,a\n0,1.0\n1,2.0\n")
    logger = MetricsCSVLogger(tmp_path)
    logger.forget_from(1)
    logger.log_metrics({"a": 3.0}, step=1)
    assert list(read_metrics(logger.file).a) == [1.0, 3.0]
    assert logger.file.read_text().splitlines()[:2] == ["step,a,checksum", "0,1.0,"]
    logger.file.write_text(logger.file.read_text().replace("3.0", "3.5"))
    with pytest.raises(ValueError, match="line 3 does not have its checksum"):
        read_metrics(logger.file)
