"""The examples run, fit into one page, and agree with the built-in parts where they must."""

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.morse import MorsePotential
from torch import nn

import lightning_vfe as lv
from lightning_vfe.physics.kinetic import kinetic_energy_nested
from lightning_vfe.physics.units import BOHR_TO_ANGSTROM, HARTREE_TO_EV
from tests.helpers.derivatives import finite_difference_kinetic
from tests.helpers.states import states_at
from tests.helpers.trainers import quiet_trainer

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted([*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.yaml")])
MOST_LINES = 40


def example(name: str):
    """An example as a module; each is imported once."""
    key = f"examples_{name}"
    if key not in sys.modules:
        spec = importlib.util.spec_from_file_location(key, EXAMPLES / f"{name}.py")
        sys.modules[key] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[key])
    return sys.modules[key]


def train(state, max_steps, optimizer=None):
    data = lv.MCMCDataModule(state, equilibration_steps=5)
    quiet_trainer(max_steps).fit(lv.VariationalFreeEnergy(state, optimizer), data)


def measure(state, term, num_sweeps):
    (estimate,) = state.expect(lambda batch: state.energies(batch).terms[term], num_sweeps)
    return estimate


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_each_fits_on_a_page_and_into_the_table(file):
    assert len(file.read_text().splitlines()) <= MOST_LINES
    assert f"`{file.name}`" in (EXAMPLES / "README.md").read_text()


# --- own wavefunction -----------------------------------------------------------------------------------------------


def attention():
    system = lv.System(4)
    psi, cell = example("own_wavefunction").AttentionWavefunction(system), lv.PeriodicCell(4, 1.5)
    protons, electrons = cell.length * torch.rand(4, 3), cell.length * torch.rand(3, 4, 3)
    return psi, cell, protons, electrons, states_at(cell, 3)


def test_kinetic_energy_of_attention_is_that_of_finite_differences():
    psi, _, protons, electrons, states = attention()
    log_psi = lambda r: psi(protons, r, states)  # noqa: E731
    expected = finite_difference_kinetic(log_psi, electrons)
    torch.testing.assert_close(kinetic_energy_nested(log_psi, electrons), expected, rtol=1e-5, atol=1e-5)


def test_attention_is_antisymmetric_and_periodic():
    psi, cell, protons, electrons, states = attention()
    value = torch.exp(psi(protons, electrons, states)).real
    for order, sign in (([1, 0, 2, 3], -1), ([0, 1, 3, 2], -1), ([2, 3, 0, 1], 1)):
        swapped = torch.exp(psi(protons, electrons[:, order], states)).real
        torch.testing.assert_close(swapped, sign * value, rtol=1e-10, atol=1e-14)
    moved = electrons.clone()
    moved[:, 1, 2] += cell.length
    for other in (psi(protons, moved, states), psi(protons[[2, 0, 3, 1]], electrons, states)):
        torch.testing.assert_close(torch.exp(other).real, value, rtol=1e-10, atol=1e-14)


def test_training_lowers_the_energy_of_attention():
    before, after = (measure(example("own_wavefunction").main(steps), "energy_per_atom", 8) for steps in (1, 16))
    assert after.value < before.value - 3 * math.hypot(before.error, after.error)


# --- own flow -------------------------------------------------------------------------------------------------------


class Identity(nn.Module):
    """z = x, without a parameter."""

    def __init__(self, system):
        super().__init__()

    def to_base(self, x, states):
        return x


def test_an_identity_gives_the_free_energy_of_the_base():
    own, none = example("own_flow").build(), example("own_flow").build(Identity)
    built_in = example("own_flow").build(lambda system: lv.EquivariantFlow(system, lv.StatePoint(2.0, 6000.0)))
    built_in.wavefunction.load_state_dict(own.wavefunction.state_dict())
    batch = own.batch()
    expected = built_in.energies(batch)
    for state in (own, none):
        found = state.energies(batch)
        assert bool((found.protons.log_abs_det_dzdx == 0).all())
        torch.testing.assert_close(found.protons.log_prob, expected.protons.log_prob, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(
            found.terms["free_energy_per_atom"], expected.terms["free_energy_per_atom"], rtol=1e-10, atol=1e-10
        )


def test_scores_of_an_own_flow_are_the_derivatives_of_ln_p():
    state = example("own_flow").build()
    density, batch = state.proton_density, state.current()
    nn.init.constant_(density.flow.map.amplitude, -0.05)
    log_prob, scores = density.scores(batch.protons[:4], batch.states[:4])
    for walker in range(4):
        here = slice(walker, walker + 1)
        value = density.log_prob(batch.protons[here], batch.states[here])
        (slope,) = torch.autograd.grad(value.sum(), density.flow.map.amplitude)
        torch.testing.assert_close(scores[walker, 0], slope, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(log_prob[here], value.detach(), rtol=1e-12, atol=1e-12)


def test_training_of_an_own_flow_lowers_the_free_energy():
    before = measure(example("own_flow").build(), "free_energy_per_atom", 8)
    state = example("own_flow").main(max_steps=15)
    after = measure(state, "free_energy_per_atom", 8)
    assert after.value < before.value - 3 * math.hypot(before.error, after.error)
    assert float(state.proton_density.flow.map.amplitude.detach()) < 0, "the protons move apart"


# --- own potential and ASE ------------------------------------------------------------------------------------------


def test_an_own_potential_is_the_base():
    strength = 0.02
    state = example("own_potential").build(strength)
    base, kT = state.proton_density.base, lv.StatePoint(2.0, 6000.0).kT
    assert type(base.potential) is example("own_potential").CosineRepulsion
    assert float(base.potential.strength) == strength
    argument = torch.tensor(strength / kT)
    exact = 3 * strength * (1 - float(torch.special.i1e(argument) / torch.special.i0e(argument)))
    energy = measure(state, "base_energy_per_atom", 10)
    assert abs(2 * energy.value - exact) < 4 * 2 * energy.error, "whole cell, from the Bessel functions of its ln Z"


def test_an_own_potential_of_strength_zero_is_the_uniform_base_and_repulsion_lowers_f():
    weak, strong = (example("own_potential").build(strength) for strength in (0.0, 0.03))
    batch, uniform = weak.batch(), lv.UniformBase(lv.System(2))
    expected = uniform.log_prob(batch.protons, batch.states)
    torch.testing.assert_close(weak.energies(batch).protons.log_prob, expected, rtol=1e-12, atol=1e-12)
    strong.wavefunction.load_state_dict(weak.wavefunction.state_dict())
    before, after = (measure(state, "free_energy_per_atom", 20) for state in (weak, strong))
    assert after.value < before.value - 2 * math.hypot(before.error, after.error)


def test_energies_of_the_base_are_those_of_the_calculator():
    module = example("ase_base")
    state = module.build(num_samples=50)
    batch = state.batch()
    length = state.system.cell.length * 2.0 * BOHR_TO_ANGSTROM
    found = state.energies(batch).protons
    for z, energy in zip(found.z, found.base_energy, strict=True):
        atoms = Atoms("H2", z.numpy() * BOHR_TO_ANGSTROM, cell=[length] * 3, pbc=True)
        atoms.calc = MorsePotential(**module.MORSE)
        np.testing.assert_allclose(float(energy), atoms.get_potential_energy() / HARTREE_TO_EV, rtol=1e-10)
    train(state, 1, lv.Adam())


# --- own move, optimizer, LightningCLI ------------------------------------------------------------------------------


def test_an_own_move_without_tails_is_the_gaussian_move_bit_for_bit():
    module = example("own_move")
    states = [module.build(move) for move in ("gaussian", module.LongTailedMove(0.0), module.LongTailedMove())]
    for state in states:
        state.equilibrate(2)
    electrons = [state.walkers.electrons for state in states]
    assert torch.equal(electrons[0], electrons[1])
    assert not torch.equal(electrons[0], electrons[2])


def test_moves_with_long_tails_find_the_same_energy():
    (gaussian,), (own,) = example("own_move").main(num_sweeps=12)
    assert abs(gaussian.value - own.value) < 4 * math.hypot(gaussian.error, own.error)


def test_adamw_lowers_the_energy():
    before = measure(example("torch_optimizer").build(), "energy_per_atom", 20)
    after = measure(example("torch_optimizer").main(max_steps=40), "energy_per_atom", 20)
    assert after.value < before.value - 2 * math.hypot(before.error, after.error)


def test_lightnings_own_command_line_builds_and_fits():
    words = ["fit", "--config", str(EXAMPLES / "lightning_cli.yaml"), "--trainer.max_steps", "2"]
    cli = example("lightning_cli").main([*words, "--trainer.enable_progress_bar", "false"])
    assert cli.model.state is cli.datamodule.state
    assert int(cli.model.trained_steps) == 2
    assert cli.model.state.counts.num_proton_walkers == 16
    assert math.isfinite(float(cli.model.state.energies().terms["free_energy_per_atom"].mean()))
