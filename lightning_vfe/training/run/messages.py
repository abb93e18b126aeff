"""What callbacks report at the end of a run; the caller of the run prints it."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

from lightning.pytorch.callbacks import Callback
from rich.console import RenderableType

from lightning_vfe import __version__


class Reporter(Callback):
    """A callback that collects tables and lines instead of printing them.

    Attributes:
        run_dir: the run folder, for its files.
        messages: what rich can print, in its order.
        command: what the user has called; empty where nobody said it.

    Args:
        run_dir: the run folder.
    """

    def __init__(self, run_dir: str | os.PathLike[str]) -> None:
        self.run_dir = Path(run_dir)
        self.messages: list[RenderableType] = []
        self.command = ""

    def provenance(self) -> dict[str, str]:
        """Version, command and date, for the files of results."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        return {"version": __version__, "command": self.command, "date": now}
