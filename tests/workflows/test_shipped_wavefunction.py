"""Which shipped wavefunction a new run starts from, and with which trust region."""

from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from lightning_vfe.resources import resource_folder
from lightning_vfe.workflows.compose import compose_config
from lightning_vfe.workflows.guards import default_dtype
from lightning_vfe.workflows.overrides import parse
from lightning_vfe.workflows.start import start_networks
from lightning_vfe.workflows.tasks import VariationalTask

SHIPPED = "data/wavefunctions/h8_rs1p2-2p1_4000-10000K_twists222.ckpt"


def prepared(*words: str) -> DictConfig:
    """The config of a new run with these overrides, as it is run."""
    config = compose_config(parse(words))
    VariationalTask().prepare(config, may_round=True)
    return config


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["system.twist_symmetry=none"],
        ["base=uniform", "system.rs=[1.3,2.1]", "system.temperature_kelvin=[4000,9000]"],
        ["base=uniform", "system.states=[[1.2,4000],[1.5,7000]]"],
        ["system.nucleus=D", "flow.num_blocks=2", "optimizer=adam"],
    ],
)
def test_a_run_of_the_trained_cell_starts_from_it(words: list[str]) -> None:
    assert prepared(*words).wavefunction_ckpt == SHIPPED


@pytest.mark.parametrize(
    "words",
    [
        ["system.num_atoms=6"],
        ["system.twists=[1,1,1]"],
        ["system.twist_shift=[0.5,0.5,0.5]"],
        ["system.rs=1.19"],
        ["system.temperature_kelvin=[6000,10001]"],
        ["wavefunction.num_layers=2"],
        ["wavefunction.num_determinants=2"],
        ["wavefunction=molecular"],
        ["system.protons=fixed", "system.structure=sc"],
        ["init_from=data/runs/eos_h8_tabc"],
        ["wavefunction_ckpt=null"],
        ["experiment=eos_h8_tabc"],
        ["experiment=smoke"],
        ["experiment=jellium14_rs5"],
    ],
)
def test_any_other_run_does_not(words: list[str]) -> None:
    assert prepared(*words).wavefunction_ckpt is None


def test_trained_parameters_move_in_small_steps() -> None:
    assert prepared().optimizer.wavefunction_max_norm == 2e-5
    assert prepared("init_from=RUN").optimizer.wavefunction_max_norm == 1e-4
    assert prepared("optimizer.wavefunction_max_norm=2e-3").optimizer.wavefunction_max_norm == 2e-3
    assert prepared("wavefunction_ckpt=null").optimizer.wavefunction_max_norm is None
    assert "wavefunction_max_norm" not in prepared("optimizer=adam").optimizer


def test_the_run_has_the_parameters_of_the_file() -> None:
    config = prepared("system.rs=1.25")
    with default_dtype("float64"):
        module, _ = VariationalTask().build(config)
        (note,) = start_networks(module, config)
    assert note == f"wavefunction starts from {SHIPPED}; wavefunction_ckpt=null starts from random parameters"
    saved = torch.load(resource_folder("data").parent / SHIPPED)["state_dict"]
    own = module.wavefunction.state_dict()
    assert all(torch.equal(own[name], saved[f"wavefunction.{name}"]) for name in own)
    readouts = [values for name, values in module.proton_density.flow.state_dict().items() if "readout" in name]
    assert readouts
    assert all(torch.equal(values, torch.zeros_like(values)) for values in readouts), "the flow starts as the identity"


def test_only_the_wavefunction_is_shipped() -> None:
    content = torch.load(resource_folder("data").parent / SHIPPED)
    assert all(name.startswith("wavefunction.") for name in content["state_dict"])
    assert not {"optimizer_states", "walkers"} & set(content)


def test_a_file_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "psi.ckpt"
    content = torch.load(resource_folder("data").parent / SHIPPED)
    torch.save(content, path)
    config = prepared("system.twists=[1,1,1]", f"wavefunction_ckpt={path}")
    with default_dtype("float64"):
        module, _ = VariationalTask().build(config)
        assert start_networks(module, config)[0].startswith(f"wavefunction starts from {path};")
