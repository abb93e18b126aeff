"""The settings of the network."""

import pytest
import torch

from lightning_vfe.models.potential.schnet import SchNetPotential
from lightning_vfe.physics.cell import PeriodicCell
from tests.helpers.potentials import make_schnet, random_protons


def test_scale_and_offset_of_the_network():
    """E - repulsion = sum_i (e_0 + e_1 SchNet_i), linear in both."""
    cell = PeriodicCell(3, 1.25)
    potential, z = make_schnet(energy_per_atom=0.0, energy_scale=1.0), random_protons(cell, 4)
    repulsion = potential.repulsion.energy(z, cell)
    network = potential.energy(z, cell) - repulsion
    potential.set_scale(-0.55, 0.02)
    torch.testing.assert_close(potential.energy(z, cell) - repulsion, 3 * -0.55 + 0.02 * network)
    with pytest.raises(ValueError, match=r"^energy_scale = 0\.0 must be positive"):
        potential.set_scale(-0.55, 0.0)


def test_without_neighbours_all_atoms_have_the_same_energy():
    cell = PeriodicCell(2, 10.0)
    potential = make_schnet()
    apart = potential.energy(torch.tensor([[0.0, 0.0, 0.0], [6.0, 6.0, 6.0]]), cell)
    elsewhere = potential.energy(torch.tensor([[0.0, 0.0, 0.0], [5.0, 4.0, 9.0]]), cell)
    assert torch.equal(apart, elsewhere)


def test_default_dtype_is_the_one_of_the_parameters():
    torch.set_default_dtype(torch.float32)
    potential, cell = SchNetPotential(num_features=8, num_interactions=1), PeriodicCell(2, 1.25)
    z = random_protons(cell, 2)
    assert potential.energy(z, cell).dtype == torch.float32
    single = potential.forces(z, cell)
    torch.testing.assert_close(potential.double().forces(z.double(), cell).float(), single, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_features", 0),
        ("num_interactions", 0),
        ("num_radial", 1),
        ("core_radius", 4.0),
        ("switch", "linear"),
        ("activation", "relu"),
        ("output_activation", "relu"),
        ("yukawa_strength", -1.0),
        ("cutoff", 0.0),
    ],
)
def test_bad_settings_are_refused(key, value):
    with pytest.raises(ValueError, match=rf"^{key} = '?{value}") as caught:
        SchNetPotential(**{"num_features": 8, key: value})
    assert "\n" not in str(caught.value)
