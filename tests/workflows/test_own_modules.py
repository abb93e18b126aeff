"""Parts of the user on the command line: modules that `imports` names, and classes that a `_target_` names."""

import importlib
import sys

import pytest
import torch

import lightning_vfe as lv
from lightning_vfe.cli import main
from lightning_vfe.models.potential import storage

PARTS = """
import torch
import lightning_vfe as lv


class Move(lv.GaussianProposal):
    def __init__(self, scale):
        self.scale = scale


class Sampler(lv.NestedSampler):
    def __init__(self, extra, **settings):
        super().__init__(**settings)
        self.extra = extra


class Flow(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.zeros(3))

    def to_base(self, x, states):
        return x + self.shift


class Psi(torch.nn.Module):
    def __init__(self, system, reference):
        super().__init__()
        self.inner = lv.GeminalWavefunction(system, reference, num_layers=1, single_width=4, pair_width=4)

    def forward(self, protons, electrons, states):
        return self.inner(protons, electrons, states)


class Repulsion(lv.YukawaPotential):
    pass


lv.register_potential("repulsion_of_a_test", Repulsion)
"""
SMOKE = ["experiment=smoke", "trainer.accelerator=cpu", "trainer.max_steps=2"]


def forget(module):
    """Let the module be imported afresh, as in another program."""
    sys.modules.pop(module, None)
    storage.KINDS.pop("repulsion_of_a_test", None)


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """The name of a module in the current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(storage, "KINDS", dict(storage.KINDS))
    (tmp_path / "parts_of_a_test.py").write_text(PARTS)
    yield "parts_of_a_test"
    forget("parts_of_a_test")


def test_own_classes_take_the_place_of_whole_groups(parts, capsys):
    words = [
        f"imports=[{parts}]",
        f"flow={{_target_: {parts}.Flow}}",
        f"wavefunction={{_target_: {parts}.Psi, system: ${{particles}}, reference: ${{reference}}}}",
        f"sampler._target_={parts}.Sampler",
        "+sampler.extra=3",
        f"sampler.electron_proposal={{_target_: {parts}.Move, scale: 0.5}}",
        "sampler.electron_target_acceptance=0.5",
    ]
    assert main(["fit", *SMOKE, *words]) == 0
    shown = capsys.readouterr().out
    assert shown.count("kinetic energy") == 1, "the banner says once that the nested route is slow"
    forget(parts)
    state = lv.load("runs/smoke").state
    assert [type(part).__name__ for part in (state.sampler, state.wavefunction)] == ["Sampler", "Psi"]
    assert type(state.proton_density.flow.map).__name__ == "Flow"
    assert (state.sampler.extra, state.sampler.electron_proposal.scale) == (3, 0.5)
    assert state.sampler.electron_target_acceptance == 0.5
    assert bool(torch.isfinite(state.energies().terms["free_energy_per_atom"]).all())
    assert main(["test", "run_dir=runs/smoke", "datamodule.test_steps=2"]) == 0


def test_the_built_in_wavefunction_says_nothing_of_a_slow_route(parts, capsys):
    assert main(["fit", *SMOKE]) == 0
    assert "kinetic energy" not in capsys.readouterr().out


def test_a_potential_that_an_imported_module_registers(parts, tmp_path):
    sys.path.append(str(tmp_path))
    repulsion = importlib.import_module(parts).Repulsion(strength=0.01, screening_length=0.5, cutoff=2.0)
    origin = {"rs_range": [1.9, 2.1], "temperature_kelvin": 6000.0, "label": "a test"}
    lv.save_potential(repulsion, "own.pt", origin)
    sys.path.remove(str(tmp_path))
    forget(parts)
    words = ["potential.path=own.pt", "system.num_atoms=2", "system.rs=2", "num_samples=0"]
    words += ["log_z.num_sweeps=20", "log_z.max_sweeps=20", "log_z.pilot_sweeps=6"]
    assert main(["log-z", *words]) == 2, "no class of this kind"
    main(["log-z", *words, f"imports=[{parts}]"])
    assert (tmp_path / "own.log_z.json").is_file()
    assert lv.load_potential("own.pt")[0].settings == repulsion.settings


@pytest.mark.parametrize(("content", "why"), [(None, "ModuleNotFoundError"), ("1 / 0", "ZeroDivisionError")])
def test_a_module_that_cannot_be_imported(content, why, parts, tmp_path, capsys):
    if content is not None:
        (tmp_path / "broken_part.py").write_text(content)
    assert main(["fit", *SMOKE, "imports=[broken_part]"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: imports = broken_part cannot be imported ({why}")
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()
