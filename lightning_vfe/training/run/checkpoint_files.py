"""The files of a run's checkpoints: each is written whole or not at all, and the last few are kept."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import TorchCheckpointIO
from typing_extensions import override

from lightning_vfe.files import rename, save_tensors

LAST = "last.ckpt"
"""The newest checkpoint of a folder."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all.

    Lightning's own writer goes through the system's folder for temporary files, from where a move to another disk is a
    copy that can stop half-way.
    """

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write the checkpoint to a local path.

        Raises:
            OSError: the disk is full, or the folder cannot be written to.
        """
        save_tensors(checkpoint, path)


class CheckpointFolder:
    """`step-00000050.ckpt` of the last few saved steps, and `last.ckpt`, a second name of the newest of them.

    A second name (hard link) takes no space, follows the file when the folder is moved, and is never one that points
    nowhere; where the file system knows none, `last.ckpt` is kept as a copy.

    A save has two halves. `pending` is where a checkpoint is written; `commit` makes it the newest. In between the run
    does what belongs to the saved step but comes after the save, such as its row of metrics.csv.

    Args:
        path: the folder.
        keep_last: number of steps that are kept.
    """

    def __init__(self, path: str | os.PathLike[str], keep_last: int) -> None:
        self.path, self.keep_last = Path(path), keep_last

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self.path / LAST

    @property
    def pending(self) -> Path:
        """A checkpoint that is whole, but not yet the newest."""
        return self.path / f"{LAST}.pending"

    def step_file(self, step: int) -> Path:
        """The checkpoint of a step."""
        return self.path / f"step-{step:08d}.ckpt"

    def commit(self, step: int) -> None:
        """Make the pending checkpoint that of this step and the newest.

        Older ones beyond keep_last go, and so do those of later steps: a run that went back to an earlier checkpoint
        has left them.
        """
        # last.ckpt first: a kill between the two leaves one step less to go back to, never a last.ckpt that is behind
        rename(self.pending, self.last)
        fresh = self.path / f"{self.step_file(step).name}.new"
        fresh.unlink(missing_ok=True)
        try:
            os.link(self.last, fresh)
        except OSError:
            shutil.copyfile(self.last, fresh)
        rename(fresh, self.step_file(step))
        files = checkpoints_by_step(self.path)
        kept = sorted(saved for saved in files if saved <= step)[-self.keep_last :]
        for saved, file in files.items():
            if saved not in kept:
                file.unlink()

    def clean(self) -> None:
        """Remove what a killed process left half-written."""
        for pattern in ("*.ckpt*.new", "*.ckpt.pending"):
            for file in self.path.glob(pattern):
                file.unlink()


def checkpoints_by_step(folder: Path) -> dict[int, Path]:
    """The files step-N.ckpt of a folder by N."""
    found = ((re.fullmatch(r"step-(\d+)\.ckpt", file.name), file) for file in folder.glob("step-*.ckpt"))
    return {int(match[1]): file for match, file in found if match}
