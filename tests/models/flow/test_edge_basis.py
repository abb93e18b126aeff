"""The functions of relative vectors against plain sums and autograd."""

import itertools

import pytest
import torch
from e3nn import o3

from lightning_vfe.models.flow.edge_basis import EdgeBasis
from lightning_vfe.models.flow.edges import Edges
from lightning_vfe.physics.cell import PeriodicCell
from tests.helpers.flows import random_protons


@pytest.mark.parametrize("lmax", [1, 2, 4])
def test_gradient_against_autograd(lmax):
    """This is also the test of the factor (2 l + 1) sqrt(l) of the gradients of solid harmonics."""
    cell = PeriodicCell(3, 1.2)
    basis = EdgeBasis(cell, lmax, num_radial=4, cutoff=1.1 * cell.length)
    x = random_protons(cell, 1) / cell.length
    values, gradients = basis(x, with_gradient=True)
    plain, none = basis(x, with_gradient=False)
    assert none is None
    torch.testing.assert_close(values, plain, rtol=1e-13, atol=1e-13)
    jacobian = torch.autograd.functional.jacobian(lambda y: basis(y, with_gradient=False).values, x)
    jacobian = jacobian.squeeze(4)[0]  # (N_i, N_j, K, N, 3)
    for i, j in itertools.product(range(3), repeat=2):
        # Column x_j of a pair (i, j); for j = i the two ends of an atom's own images move together.
        own = gradients[0, i, j] if i != j else gradients[0, i, j] * 0.0
        torch.testing.assert_close(own.T, jacobian[i, j, :, j], rtol=1e-11, atol=1e-11)
    own_images = gradients[0].diagonal(dim1=0, dim2=1).abs().amax()
    assert own_images > 1e-3  # they count, though they move with the atom


@pytest.mark.parametrize("fraction", [0.4, 0.6, 0.9, 1.6])
def test_all_images_within_the_cutoff(fraction):
    """The edges against a plain loop over many lattice vectors, with cutoffs below L/2 and above L."""
    cell = PeriodicCell(2, 1.0)
    cutoff = fraction * cell.length
    edges = Edges(cell, cutoff)
    lattice = torch.tensor(list(itertools.product(range(-8, 9), repeat=3))) * cell.length
    for seed in range(5):
        x = random_protons(cell, 1, seed=seed) + torch.tensor([0.0, 3.0, -2.0]) * cell.length
        vectors = cell.length * edges(x / cell.length)[0]  # (N_i, N_j, M, 3)
        for i, j in itertools.product(range(2), repeat=2):
            found = vectors[i, j].norm(dim=-1)
            found = found[(found < cutoff) & (edges.others[i, j] > 0)].sort().values
            distances = (x[0, j] - x[0, i] + lattice).norm(dim=-1)
            expected = distances[(distances < cutoff) & (distances > 0)].sort().values
            torch.testing.assert_close(found, expected)


def test_values_are_spherical_harmonics():
    """One pair, alone in a large cell: phi = q^-l S_lm(r) R_b(r^2)."""
    cell = PeriodicCell(2, 10.0)
    basis = EdgeBasis(cell, lmax=2, num_radial=3, cutoff=9.0)
    vector = torch.tensor([1.0, -4.0, 2.0])
    values = basis(torch.stack([torch.zeros(3), vector / cell.length]).unsqueeze(0), with_gradient=False).values
    squared = vector.square().sum()
    q = torch.sqrt(squared + basis.epsilon**2)
    radial = torch.exp(-0.5 * ((q - torch.tensor([0.0, 4.5, 9.0])) / 4.5).square()) * (1 - squared / 81.0) ** 3
    powers = torch.tensor([0.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0])
    angular = o3.spherical_harmonics([0, 1, 2], vector, normalize=False, normalization="component")
    torch.testing.assert_close(values[0, 0, 1].view(9, 3), torch.outer(angular * q**-powers, radial))
