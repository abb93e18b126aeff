"""The repulsion of close protons: its sum, its sign, and that it wins over SchNet."""

import pytest
import torch

from lightning_vfe.models.potential.yukawa import YukawaPotential
from lightning_vfe.physics.cell import PeriodicCell
from tests.helpers.potentials import make_schnet, random_protons


def test_energy_is_the_sum_over_the_lattice():
    """Two atoms per cell and a cutoff where nothing is left: sums over shells of cells, each pair once."""
    cell, strength, length = PeriodicCell(2, 1.5), 1.7, 0.7
    z = cell.length * torch.tensor([[0.1, 0.2, 0.9], [0.8, 0.7, 0.3]])
    images = cell.length * torch.cartesian_prod(*[torch.arange(-8.0, 9.0)] * 3)
    between = (z[1] - z[0] + images).norm(dim=-1)
    own = images[images.square().sum(-1) > 0].norm(dim=-1)
    exact = (torch.exp(-between / length) / between).sum() + (torch.exp(-own / length) / own).sum()
    potential = YukawaPotential(strength, length, cutoff=24.0, energy_per_atom=-0.3)
    torch.testing.assert_close(potential.energy(z, cell), strength * exact - 0.6, rtol=1e-7, atol=0.0)


def test_close_protons_feel_their_bare_repulsion():
    """r E(r) tends to one, and the slope is that of 1/r."""
    cell = PeriodicCell(2, 10.0)
    r = torch.tensor([1e-3, 1e-2])
    z = torch.zeros(2, 2, 3)
    z[:, 1, 0] = r
    energy, forces = YukawaPotential().energy_and_forces(z, cell)
    torch.testing.assert_close(energy, 1.0 / r - 1.0 / 0.7, rtol=2e-4, atol=0.0)
    torch.testing.assert_close(forces[:, 1, 0], r**-2, rtol=1e-3, atol=0.0)


def test_the_force_is_repulsive_up_to_the_cutoff():
    cell = PeriodicCell(2, 10.0)
    z = torch.zeros(400, 2, 3)
    z[:, 1, 1] = torch.linspace(0.01, 3.999, 400)
    force = YukawaPotential().forces(z, cell)[:, 1, 1]
    assert (force > 0).all()


def test_protons_at_the_same_place_have_no_nan():
    cell = PeriodicCell(3, 1.25)
    z = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.5, 0.7]])
    for potential in (YukawaPotential(), make_schnet()):
        energy, forces = potential.energy_and_forces(z, cell)
        assert energy > 1e9
        assert torch.isfinite(forces).all()
    plain = make_schnet(core_radius=0.0, yukawa_strength=0.0)
    assert all(torch.isfinite(part).all() for part in plain.energy_and_forces(z, cell))


@pytest.mark.parametrize("num_atoms", [2, 8])
def test_schnet_never_attracts_a_close_pair(num_atoms):
    """E falls with r up to 0.3 bohr for ten networks with forces of 1 Ha/bohr, ten times those in hydrogen."""
    cell = PeriodicCell(num_atoms, 1.25)
    z = random_protons(cell, 1).expand(60, -1, -1).clone()
    r = torch.linspace(0.02, 0.3, 60)
    z[:, 1] = z[:, 0] + r.unsqueeze(-1) * torch.nn.functional.normalize(torch.tensor([0.3, -0.5, 0.8]), dim=0)
    for seed in range(10):
        with torch.no_grad():
            energy = make_schnet(seed, 1.0, num_features=32, num_interactions=3, num_radial=20).energy(z, cell)
        assert (energy[1:] < energy[:-1]).all()


def test_schnet_alone_is_flat_in_the_core():
    """Its force vanishes like r^3, so that nothing it does outside the labels pulls protons together."""
    cell = PeriodicCell(2, 4.0)
    z = torch.zeros(3, 2, 3)
    z[:, 1, 2] = torch.tensor([0.05, 0.1, 0.6])
    force = make_schnet(yukawa_strength=0.0).forces(z, cell)[:, 1, 2].abs()
    assert force[0] < 0.25 * force[1] < 0.02 * force[2]


@pytest.mark.parametrize(
    ("key", "value"), [("strength", -1.0), ("screening_length", 0.0), ("cutoff", -4.0), ("cutoff", float("nan"))]
)
def test_bad_settings_are_refused(key, value):
    with pytest.raises(ValueError, match=rf"^{key} = {value}") as caught:
        YukawaPotential(**{key: value})
    assert "\n" not in str(caught.value)
