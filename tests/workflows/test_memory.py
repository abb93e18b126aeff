"""The bound of temporaries as a key, and memory that does not suffice."""

import pytest
import torch
from omegaconf import OmegaConf

import lightning_vfe as lv
from lightning_vfe.errors import CommandError
from lightning_vfe.physics.chunking import max_chunk_elements, set_max_chunk_elements
from lightning_vfe.workflows.guards import memory_bound


@pytest.fixture(autouse=True)
def fresh_bound():
    """The bound is a setting of the process."""
    yield
    set_max_chunk_elements(None)


def test_a_run_takes_the_key(tmp_path):
    settings = ("experiment=smoke", "logger=csv", "trainer.accelerator=cpu", "trainer.max_steps=1")
    lv.fit(*settings, "max_chunk_elements=500", run_dir=tmp_path / "run")
    assert max_chunk_elements(torch.zeros(1)) == 500
    set_max_chunk_elements(None)
    lv.load(tmp_path / "run")
    assert max_chunk_elements(torch.zeros(1)) == 500


def test_a_run_of_an_earlier_version_takes_the_key(tmp_path):
    settings = ("logger=csv", "trainer.accelerator=cpu")
    lv.fit("experiment=smoke", *settings, "trainer.max_steps=1", run_dir=tmp_path / "run")
    file = tmp_path / "run" / "config.yaml"
    config = OmegaConf.load(file)
    del config.max_chunk_elements
    OmegaConf.save(config, file)
    lv.fit("max_chunk_elements=600", "trainer.max_steps=2", run_dir=tmp_path / "run", ckpt_path="last")
    assert max_chunk_elements(torch.zeros(1)) == 600


def test_a_bound_that_is_no_bound(tmp_path):
    with pytest.raises(CommandError, match="max_chunk_elements = 0 must be at least 1"):
        lv.fit("experiment=smoke", "max_chunk_elements=0", run_dir=tmp_path / "run")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError("no memory")])
def test_out_of_memory_is_one_line(error):
    with pytest.raises(CommandError, match=r"^out of memory .*use fewer walkers"), memory_bound(OmegaConf.create({})):
        raise error


def test_other_errors_keep_their_traceback():
    with pytest.raises(RuntimeError, match="a bug"), memory_bound(OmegaConf.create({})):
        raise RuntimeError("a bug")
