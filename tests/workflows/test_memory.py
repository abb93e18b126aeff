"""The bound of temporaries as a key, and memory that does not suffice."""

import resource

import pytest
import torch
from omegaconf import OmegaConf

import lightning_vfe as lv
from lightning_vfe.errors import CommandError
from lightning_vfe.physics.chunking import max_chunk_elements, set_max_chunk_elements
from lightning_vfe.physics.memory import free_memory
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


def test_out_of_memory_names_keys_that_the_command_has():
    config = OmegaConf.create({"system": {"num_atoms": 4000}, "log_z": {"num_chains": 32}, "max_chunk_elements": None})
    expected = r"^out of memory \(no memory\), system.num_atoms = 4000, log_z.num_chains = 32; lower one of them$"
    with pytest.raises(CommandError, match=expected), memory_bound(config):
        raise MemoryError("no memory")
    config = OmegaConf.create({"system": {"num_atoms": 4000}, "max_chunk_elements": None})
    with (
        pytest.raises(CommandError, match="= 4000; lower one of them or max_chunk_elements, use"),
        memory_bound(config),
    ):
        raise MemoryError("no memory")


def test_other_errors_keep_their_traceback():
    with pytest.raises(RuntimeError, match="a bug"), memory_bound(OmegaConf.create({})):
        raise RuntimeError("a bug")


@pytest.mark.parametrize(("num_atoms", "what"), [(4_000, "features"), (20_000, "pairs"), (100_000_000, "pairs")])
def test_a_limit_of_the_process_counts_as_its_memory(num_atoms, what, monkeypatch, tmp_path):
    """As `ulimit -v 6000000` sets it; the machine may have more."""
    cpu, limit = torch.device("cpu"), 6_000_000 * 1024
    machine = free_memory(cpu)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert free_memory(cpu) < min(machine, limit)
    message = (
        rf"system\.num_atoms = {num_atoms} needs at least .* GiB for the {what} .*, and \S+ GiB are free; lower it"
    )
    with pytest.raises(CommandError, match=message):
        lv.fit("experiment=smoke", f"system.num_atoms={num_atoms}", run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
