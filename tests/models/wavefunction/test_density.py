"""The electron density in few operations: the same numbers as log_psi, at every size, density, twist and image."""

import pytest
import torch

from lightning_vfe.models.twin import Twin
from lightning_vfe.models.wavefunction.conditional import electron_density, plain_log_prob
from lightning_vfe.models.wavefunction.density import ElectronDensity
from lightning_vfe.models.wavefunction.molecular import MolecularWavefunction
from lightning_vfe.models.wavefunction.wavefunction import GeminalWavefunction
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.state_point import WalkerStates
from tests.helpers.states import states_at
from tests.helpers.wavefunctions import (
    GENERAL_TWIST,
    conditional_log_prob,
    make_wavefunction,
    random_configurations,
    trained_like,
)


def make_case(num_atoms, num_walkers=3, num_electron_walkers=2, **sizes):
    """A wavefunction, and walkers at different densities and twists: protons and electrons in bohr, states."""
    cell = PeriodicCell(num_atoms, 1.3)
    wavefunction = make_wavefunction(cell, **sizes)
    protons, electrons = random_configurations(cell, num_walkers, num_electron_walkers)
    states = states_at(cell, num_walkers, twist=GENERAL_TWIST)
    stretch = torch.linspace(0.9, 1.2, num_walkers)
    states = WalkerStates(
        states.rs * stretch, states.kT, states.twist * torch.linspace(-1.0, 1.0, num_walkers)[:, None]
    )
    scale = stretch[:, None, None, None]
    return wavefunction, (protons * scale).squeeze(1), electrons * scale, states


def report(record_property, error, tolerance):
    record_property("largest_error", float(error))
    assert error < tolerance, f"largest error {float(error):.1e} exceeds {tolerance:.0e}"


@pytest.mark.parametrize("num_determinants", [1, 3])
@pytest.mark.parametrize("num_layers", [1, 2, 3, 4])
@pytest.mark.parametrize("num_atoms", [2, 4, 10])
@torch.no_grad()
def test_it_is_that_of_log_psi(num_atoms, num_layers, num_determinants, record_property):
    sizes = {"num_layers": num_layers, "num_determinants": num_determinants}
    wavefunction, protons, electrons, states = make_case(num_atoms, **sizes)
    expected = plain_log_prob(wavefunction, protons, states)(electrons)
    found = conditional_log_prob(wavefunction, protons, states)(electrons)
    report(record_property, (found - expected).abs().max(), 1e-12)


@pytest.mark.parametrize("num_determinants", [1, 3])
@pytest.mark.parametrize(("num_atoms", "num_layers"), [(2, 1), (10, 3)])
@torch.no_grad()
def test_it_is_that_of_log_psi_of_molecules(num_atoms, num_layers, num_determinants, record_property):
    """With orbitals on the protons, at densities where they are as large as an atom still."""
    sizes = {"num_layers": num_layers, "num_determinants": num_determinants}
    wavefunction, protons, electrons, states = make_case(num_atoms, kind=MolecularWavefunction, **sizes)
    assert electron_density(wavefunction, protons, states, None) is not None
    expected = plain_log_prob(wavefunction, protons, states)(electrons)
    found = conditional_log_prob(wavefunction, protons, states)(electrons)
    report(record_property, (found - expected).abs().max(), 1e-12)


@torch.no_grad()
def test_it_is_that_of_log_psi_at_the_default_sizes(record_property):
    sizes = {"num_layers": 3, "single_width": 32, "pair_width": 16}
    wavefunction, protons, electrons, states = make_case(14, 2, 4, **sizes)
    wavefunction = trained_like(wavefunction, seed=3, size=0.02)
    expected = plain_log_prob(wavefunction, protons, states)(electrons)
    found = conditional_log_prob(wavefunction, protons, states)(electrons)
    report(record_property, (found - expected).abs().max(), 1e-12)


@torch.no_grad()
def test_it_is_that_of_log_psi_with_signs_in_an_open_shell(record_property):
    """Moves and energies must take the same psi: bcc and N = 16 have one pair in a degenerate shell."""
    wavefunction, protons, electrons, states = make_case(16, 2, 4, open_shell="d")
    expected = plain_log_prob(wavefunction, protons, states)(electrons)
    found = conditional_log_prob(wavefunction, protons, states)(electrons)
    report(record_property, (found - expected).abs().max(), 1e-12)
    other = make_case(16, 2, 4)[0]
    assert (plain_log_prob(other, protons, states)(electrons) - expected).abs().max() > 1e-3


@torch.no_grad()
def test_every_image_is_the_same(record_property):
    wavefunction, protons, electrons, states = make_case(4)
    density = ElectronDensity.prepare(wavefunction, protons, states).for_walkers(2)
    positions = electrons / states.rs[:, None, None, None]
    images = positions + density.unit_length * torch.randint(-2, 3, positions.shape)
    report(record_property, (density(images) - density(positions)).abs().max(), 1e-11)


@pytest.mark.parametrize("kind", [GeminalWavefunction, MolecularWavefunction])
@pytest.mark.parametrize("num_determinants", [1, 2])
def test_gradients_of_positions(num_determinants, kind, record_property):
    """What Langevin moves take; an electron's pair with itself must not spoil them."""
    wavefunction, protons, electrons, states = make_case(6, kind=kind, num_layers=3, num_determinants=num_determinants)
    gradients = []
    for make in (plain_log_prob, conditional_log_prob):
        variable = electrons.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(make(wavefunction, protons, states)(variable).sum(), variable)
        gradients.append(gradient)
    expected, found = gradients
    report(record_property, (found - expected).abs().max() / expected.abs().max(), 1e-11)


@pytest.mark.parametrize("kind", [GeminalWavefunction, MolecularWavefunction])
@torch.no_grad()
def test_single_precision_rounds_as_the_networks_in_it_do(kind):
    """The error of ln|psi|^2 is that of log_psi in float32, up to a factor."""
    sizes = {"num_layers": 3, "single_width": 32, "pair_width": 16}
    wavefunction, protons, electrons, states = make_case(14, 8, 64, kind=kind, **sizes)
    exact = plain_log_prob(wavefunction, protons, states)(electrons)
    twin = Twin(wavefunction, torch.float32).module()
    rounded = [make(wavefunction, protons, states, twin)(electrons) for make in (plain_log_prob, conditional_log_prob)]
    before, after = (float((each - exact).std()) for each in rounded)
    print(f"standard deviation of the rounding: {before:.1e} by log_psi, {after:.1e} by the density")
    assert rounded[1].dtype == torch.float64
    assert after < 2.0 * before < 1e-3


@torch.no_grad()
def test_parameters_that_change_later_are_not_seen():
    wavefunction, protons, electrons, states = make_case(4)
    density = ElectronDensity.prepare(wavefunction, protons, states).for_walkers(2)
    copy, positions = density.clone(), electrons / states.rs[:, None, None, None]
    before = density(positions)
    trained_like(wavefunction, seed=5)
    assert torch.equal(density(positions), before)
    assert torch.equal(copy(positions), before)
    for own, theirs in zip(copy.tensors(), density.tensors(), strict=True):
        assert own.data_ptr() != theirs.data_ptr()
    assert not torch.equal(ElectronDensity.prepare(wavefunction, protons, states).for_walkers(2)(positions), before)


@torch.no_grad()
def test_other_wavefunctions_are_evaluated_as_they_are():
    class Shifted(type(make_case(2)[0])):
        def log_psi(self, *args, **kwargs):
            return super().log_psi(*args, **kwargs) + 1.0

    wavefunction, protons, electrons, states = make_case(2)
    before = conditional_log_prob(wavefunction, protons, states)(electrons)
    wavefunction.__class__ = Shifted
    torch.testing.assert_close(conditional_log_prob(wavefunction, protons, states)(electrons), before + 2.0)
