"""Lines and a JSON file that show how far the check of an accelerator is."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any


class Report:
    """Prints lines and keeps the JSON file up to date.

    Args:
        file: the JSON file.
        seconds: time for everything.
    """

    def __init__(self, file: Path, seconds: float) -> None:
        self.file, self.started, self.seconds = file, time.monotonic(), seconds
        self.content: dict[str, Any] = {"errors": {}, "phases": [], "training": []}

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.seconds - (time.monotonic() - self.started)

    def say(self, line: str) -> None:
        """Print a line at once, with the time since the start."""
        print(f"[{time.monotonic() - self.started:6.1f}] {line}", flush=True)
        self.file.write_text(json.dumps(self.content, indent=1) + "\n")
