"""The samples of an integration on the disk, a part at a time: an interrupted one resumes with the very same ones."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from typing_extensions import override

from lightning_vfe.files import save_tensors
from lightning_vfe.log_z.journal import SweepJournal


class SweepFiles(SweepJournal):
    """One file for each part of the sweeps, with the samples and where the chains stood after it.

    Args:
        folder: where the files are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @override
    def read(self, call: int, part: int, num_sweeps: int) -> dict[str, Any] | None:
        """Samples `reduced` (num_sweeps, K, C, S) and state `chains` of a part; None where there is no whole one."""
        file = self._file(call, part)
        if not file.is_file():
            return None
        try:
            found: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        except Exception:  # a damaged part is sampled again, with the same numbers
            return None
        return found if isinstance(found, dict) and len(found.get("reduced", ())) == num_sweeps else None

    @override
    def write(self, call: int, part: int, content: dict[str, Any]) -> None:
        """Keep a part."""
        save_tensors(content, self._file(call, part))

    def remove(self) -> None:
        """Delete all parts, once they are not needed any more."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, call: int, part: int) -> Path:
        return self.folder / f"{call:03d}_{part:04d}.pt"
