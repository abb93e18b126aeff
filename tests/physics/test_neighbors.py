"""The list of pairs against ASE's neighbour list, and the list of images against all lattice vectors."""

import itertools

import ase
import numpy as np
import pytest
import torch
from ase.neighborlist import neighbor_list

from lightning_vfe.models.potential.radial import quintic_switch
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.neighbors import find_pairs, image_steps


@pytest.mark.parametrize("relative_cutoff", [0.3, 0.7, 1.6], ids=lambda c: f"cutoff={c}L")
@pytest.mark.parametrize("num_atoms", [1, 2, 5])
def test_all_pairs_and_images_are_found_once(num_atoms, relative_cutoff):
    cell = PeriodicCell(num_atoms, 1.3)
    cutoff = relative_cutoff * cell.length
    z = (6.0 * torch.rand(3, num_atoms, 3) - 3.0) * cell.length
    pairs = find_pairs(z, cell, cutoff)
    for walker in range(3):
        atoms = ase.Atoms(f"H{num_atoms}", z[walker].numpy(), cell=[cell.length] * 3, pbc=True)
        i, j, d = neighbor_list("ijd", atoms, cutoff)
        mine = pairs.first // num_atoms == walker
        first, second = pairs.first[mine] % num_atoms, pairs.second[mine] % num_atoms
        both = torch.stack([torch.cat([first, second]), torch.cat([second, first])])
        distance = pairs.squared[mine].sqrt().repeat(2)
        found = sorted((int(a), int(b), round(float(r), 9)) for a, b, r in zip(*both, distance, strict=True))
        assert found == sorted((int(a), int(b), round(float(r), 9)) for a, b, r in zip(i, j, d, strict=True))


def test_the_layout_under_vmap_gives_the_same_sums():
    cell = PeriodicCell(3, 1.3)
    z = 5.0 * torch.rand(2, 4, 3, 3)

    def sums(positions):
        pairs = find_pairs(positions, cell, 1.2 * cell.length)
        values = torch.arange(2.0 * pairs.total_atoms).reshape(-1, 2) % 6.0
        terms = quintic_switch(pairs.squared.sqrt(), 0.0, 1.2 * cell.length)
        return pairs.sum_pairs(terms), pairs.exchange(values, terms.unsqueeze(-1)).reshape(*pairs.batch, 3, 2)

    expected, mapped = sums(z), torch.func.vmap(sums)(z)
    assert expected[0].shape == (2, 4)
    for one, other in zip(expected, mapped, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("relative_cutoff", "num_images"),
    [
        (0.49, 1),
        (0.51, 2),
        (0.64, 2),
        (0.705, 2),
        (0.71, 4),
        (0.78, 4),
        (0.81, 4),
        (0.85, 5),
        (0.87, 8),
        (1.05, 11),
        (1.7, 36),
    ],
)
def test_no_image_within_the_cutoff_is_missing(relative_cutoff, num_images):
    """Also where components of the minimum image are equal, zero, or half of the edge."""
    generator = np.random.default_rng(0)
    nearest = generator.uniform(-0.5, 0.5, (4000, 3))
    nearest[:500] = np.round(4.0 * nearest[:500]) / 4.0
    nearest[500:1000, 1] = nearest[500:1000, 0]
    nearest[1000:1500, 2] = -nearest[1000:1500, 1]
    nearest[1500:2000] *= 0.01
    nearest[2000:2500] = 0.5 - 0.02 * np.abs(nearest[2000:2500])
    cell = PeriodicCell(8, 1.3)
    choice, steps = image_steps(cell, relative_cutoff * cell.length)
    assert steps.shape[1] == num_images
    sizes = np.abs(nearest)
    chosen = {"largest": sizes.argmax(-1), "smallest": sizes.argmin(-1), None: np.zeros(len(nearest), int)}[choice]
    images = nearest[:, None] + np.copysign(1.0, nearest)[:, None] * steps[chosen]
    lattice = np.array(list(itertools.product(range(-3, 4), repeat=3)))
    found, expected = (
        np.sort(np.where(distances < relative_cutoff, distances, np.inf))[:, :num_images]
        for distances in (np.linalg.norm(images, axis=-1), np.linalg.norm(nearest[:, None] + lattice, axis=-1))
    )
    np.testing.assert_allclose(found, expected, atol=1e-14)
    assert np.isfinite(found).sum(-1).max() <= num_images
