"""Files that are written whole or not at all."""

import json

import pytest

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
