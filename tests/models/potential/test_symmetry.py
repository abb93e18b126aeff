"""What the energy may not depend on, and how it grows: largest errors relative to 1e-10 Ha."""

import pytest
import torch

from lightning_vfe.models.potential.delta import DeltaPotential
from lightning_vfe.models.potential.yukawa import YukawaPotential
from lightning_vfe.physics.cell import PeriodicCell
from tests.helpers.flows import cubic_operations, report
from tests.helpers.potentials import make_schnet, random_protons, replicate

TOLERANCE = 1e-10


@pytest.fixture(params=["yukawa", "schnet", "delta"])
def potential(request):
    if request.param == "yukawa":
        return YukawaPotential()
    network = make_schnet()
    return network if request.param == "schnet" else DeltaPotential(network, make_schnet(1, cutoff=3.1))


@pytest.fixture
def cell():
    """L = 2.5 bohr: the cutoff of 4 exceeds it."""
    return PeriodicCell(2, 1.25)


@torch.no_grad()
def test_all_48_cubic_operations(potential, cell, record_property):
    z = random_protons(cell, 2)
    turned = z @ cubic_operations().unsqueeze(1).mT  # (48, W, N, 3)
    report(record_property, (potential.energy(turned, cell) - potential.energy(z, cell)).abs().max(), TOLERANCE)


@torch.no_grad()
def test_permutations_and_translations(potential, record_property):
    cell = PeriodicCell(5, 1.25)
    z = random_protons(cell, 3)
    moved = z[:, torch.randperm(5)] + torch.tensor([0.31, -7.2, 1.9])
    report(record_property, (potential.energy(moved, cell) - potential.energy(z, cell)).abs().max(), TOLERANCE)


@torch.no_grad()
def test_lattice_translations_of_single_protons(potential, cell, record_property):
    z = random_protons(cell, 2)
    shift = torch.zeros_like(z)
    shift[0, 0] = cell.length * torch.tensor([1.0, 0.0, -2.0])
    shift[1, -1] = cell.length * torch.tensor([0.0, 3.0, 1.0])
    report(record_property, (potential.energy(z + shift, cell) - potential.energy(z, cell)).abs().max(), TOLERANCE)


@pytest.mark.parametrize("num_atoms", [1, 2, 8])
def test_a_doubled_cell_has_eight_times_the_energy(potential, num_atoms, record_property):
    cell, doubled = PeriodicCell(num_atoms, 1.25), PeriodicCell(8 * num_atoms, 1.25)
    z = random_protons(cell, 2)
    energy, forces = potential.energy_and_forces(z, cell)
    many, many_forces = potential.energy_and_forces(replicate(z, cell.length), doubled)
    assert energy.abs().min() > 0.1
    report(record_property, (many - 8.0 * energy).abs().max(), TOLERANCE)
    report(record_property, (many_forces - forces.repeat(1, 8, 1)).abs().max(), TOLERANCE)
    pressures = potential.pressure(z, cell), potential.pressure(replicate(z, cell.length), doubled)
    report(record_property, (pressures[0] - pressures[1]).abs().max(), TOLERANCE)


@torch.no_grad()
def test_any_leading_dimensions(potential, cell):
    z = random_protons(cell, 6)
    expected = potential.energy(z, cell)
    assert torch.equal(potential.energy(z.reshape(2, 3, 2, 3), cell), expected.reshape(2, 3))
    torch.testing.assert_close(potential.energy(z[4], cell), expected[4], rtol=1e-13, atol=0.0)
    assert potential.forces(z.reshape(2, 3, 2, 3), cell).shape == (2, 3, 2, 3)
    assert potential.energy(z[:0], cell).shape == potential.forces(z[:0], cell)[..., 0, 0].shape == (0,)


def test_a_configuration_of_another_cell_is_refused(potential, cell):
    for z in (torch.rand(3, 3, 3), torch.rand(2), torch.ones(2, 2, 3, dtype=torch.long)):
        with pytest.raises(ValueError, match=r"must be real numbers of shape \(\.\.\., 2, 3\)"):
            potential.energy(z, cell)


def test_a_position_that_is_no_number_is_not_hidden(potential, cell):
    z = random_protons(cell, 2)
    z[1, 0, 2] = float("nan")
    energy = potential.energy(z, cell)
    assert torch.isfinite(energy[0])
    assert torch.isnan(energy[1])
