"""Files that are written whole or not at all."""

import contextlib
import errno
import io
import json
from pathlib import Path

import pytest
import torch

from lightning_vfe import files
from lightning_vfe.files import whole_file, write_json


def test_a_file_is_the_old_one_until_the_new_one_is_complete(tmp_path):
    file = tmp_path / "new_folder" / "summary.json"
    write_json(file, {"step": 1})
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(file, {"step": object()})
    with pytest.raises(KeyboardInterrupt), whole_file(file) as stream:  # noqa: PT012  the block is what breaks
        stream.write("half of")
        stream.flush()
        assert json.loads(file.read_text()) == {"step": 1}
        raise KeyboardInterrupt
    assert json.loads(file.read_text()) == {"step": 1}
    assert [each.name for each in file.parent.iterdir()] == ["summary.json"]
    write_json(file, {"step": 2})
    assert file.read_text() == '{\n  "step": 2\n}\n'


def test_a_full_disk_is_an_error_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torch is writing: torch itself raises a RuntimeError about positions in the file."""

    class Full(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, _: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "whole_file", lambda *_: contextlib.nullcontext(Full()))
    with pytest.raises(OSError, match="No space left"):
        files.save_tensors({"x": torch.ones(1000)}, tmp_path / "x.pt")
