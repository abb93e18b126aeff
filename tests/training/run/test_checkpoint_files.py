"""Files that are whole or absent, whatever stops the process that writes them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightning_vfe.training.run.checkpoint_files import AtomicCheckpointIO, CheckpointFolder, checkpoints_by_step

KILLED_WRITER = """
import os, signal, sys
import torch
from lightning_vfe.training.run.checkpoint_files import AtomicCheckpointIO, CheckpointFolder

class Kill:
    def __reduce__(self):  # called in the middle of torch.save
        os.kill(os.getpid(), signal.SIGKILL)

folder = CheckpointFolder(sys.argv[1], keep_last=2)
for step in (1, 2, 3):
    content = {"step": step, "weights": torch.full((300_000,), float(step))}
    AtomicCheckpointIO().save_checkpoint(content if step < 3 else {**content, "end": Kill()}, folder.pending)
    folder.commit(step)
"""


def save(folder: CheckpointFolder, step: int) -> None:
    AtomicCheckpointIO().save_checkpoint({"step": step}, folder.pending)
    folder.commit(step)


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


def test_a_writer_that_is_killed_leaves_the_file_before(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED_WRITER, str(tmp_path)], timeout=120)
    assert done.returncode == -signal.SIGKILL
    for name, step in (("last.ckpt", 2), ("step-00000002.ckpt", 2), ("step-00000001.ckpt", 1)):
        content = torch.load(tmp_path / name, weights_only=True)
        assert content["step"] == step
        assert (content["weights"] == step).all()
    CheckpointFolder(tmp_path, keep_last=2).clean()
    assert names(tmp_path) == ["last.ckpt", "step-00000001.ckpt", "step-00000002.ckpt"]


@pytest.mark.parametrize("at", range(1, 6))
def test_a_stop_between_any_two_renames_leaves_whole_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    folder, calls, rename = CheckpointFolder(tmp_path, keep_last=1), [], Path.replace
    save(folder, 10)

    def stop_before(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == at:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", stop_before)
    try:
        save(folder, 20)
    except KeyboardInterrupt:
        assert at <= 3
    assert len(calls) == min(at, 3)
    expected = 10 if at <= 2 else 20
    assert torch.load(folder.last, weights_only=True)["step"] == expected
    for step, file in checkpoints_by_step(tmp_path).items():
        assert torch.load(file, weights_only=True)["step"] == step
    folder.clean()
    assert not [name for name in names(tmp_path) if not name.endswith(".ckpt")]


def test_a_file_system_without_hard_links_gets_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    folder = CheckpointFolder(tmp_path, keep_last=2)
    for step in (1, 2, 3):
        save(folder, step)
    assert names(tmp_path) == ["last.ckpt", "step-00000002.ckpt", "step-00000003.ckpt"]
    assert folder.last.read_bytes() == folder.step_file(3).read_bytes()
