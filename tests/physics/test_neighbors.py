"""The list of pairs against ASE's neighbour list."""

import ase
import pytest
import torch
from ase.neighborlist import neighbor_list

from lightning_vfe.models.potential.radial import quintic_switch
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.neighbors import find_pairs


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
