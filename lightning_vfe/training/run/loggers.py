"""The run folder's metrics.csv."""

import csv
import io
import os
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from lightning_vfe.files import CHECKSUM, row_checksum, whole_file


class MetricsCSVLogger(Logger):
    """Writes every logged step as one row of `run_dir/metrics.csv`, at once, and appends to it when a run is resumed.

    Lightning's own CSVLogger deletes an existing file, and keeps up to a hundred rows in memory. Columns that turn up
    later are added to the header; rows without them stay empty there. The last column is a checksum of the row.

    Args:
        run_dir: the run folder; made when the first row is written.
    """

    def __init__(self, run_dir: str | os.PathLike[str]) -> None:
        super().__init__()
        self._folder = Path(run_dir)
        self._columns: list[str] | None = None

    @property
    def file(self) -> Path:
        """The table."""
        return self._folder / "metrics.csv"

    @property
    def name(self) -> str:
        """No folder of its own inside the run folder."""
        return ""

    @property
    def version(self) -> str:
        """No folder of its own inside the run folder."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self._folder)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a row; `step` is its first column."""
        row: dict[str, Any] = {"step": step, **metrics}
        if self._columns is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._columns = list(self._read()[0])
        new = [name for name in (*row, CHECKSUM) if name not in self._columns]
        if new:
            rows = self._read()[1]
            self._columns = [name for name in (*self._columns, *new) if name != CHECKSUM] + [CHECKSUM]
            self._rewrite(rows)
        row = {name: row.get(name) for name in self._columns}
        _append_row(self.file, self._columns, row | {CHECKSUM: row_checksum(row)})

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing to write: config.yaml holds the settings."""

    @rank_zero_only
    def forget_from(self, step: int) -> None:
        """Drop the rows of this step and of later ones: a run that resumes at `step` logs them again."""
        columns, rows = self._read()
        kept = [row for row in rows if not row["step"] or int(row["step"]) < step]
        if columns:
            self._columns = list(columns)
            self._rewrite(kept)

    def _read(self) -> tuple[list[str], list[dict[str, str]]]:
        if not self.file.exists():
            return [], []
        lines = self.file.read_text(encoding="utf-8").splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):
            lines.pop()  # a process was killed in the middle of it
        reader = csv.DictReader(lines)
        rows = list(reader)
        return list(reader.fieldnames or []), rows

    def _rewrite(self, rows: Iterable[dict[str, str]]) -> None:
        assert self._columns is not None
        with whole_file(self.file, newline="") as stream:
            writer = csv.DictWriter(stream, self._columns, restval="")
            writer.writeheader()
            writer.writerows(rows)


def _append_row(file: Path, columns: list[str], row: dict[str, Any]) -> None:
    """Append a whole row or nothing.

    Raises:
        OSError: the disk is full, or the file cannot be written to or is gone.
    """
    text = io.StringIO(newline="")
    csv.DictWriter(text, columns).writerow(row)
    with file.open("r+b", buffering=0) as stream:
        end, content = stream.seek(0, os.SEEK_END), text.getvalue().encode()
        try:
            while content:  # a disk that is nearly full takes a part
                content = content[stream.write(content) :]
        except OSError as error:
            stream.truncate(end)
            error.filename = str(file)
            raise
