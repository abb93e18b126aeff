"""The functions of relative vectors against plain sums and autograd."""

import itertools

import pytest
import torch
from e3nn import o3

from lightning_vfe.models.flow.edge_basis import EdgeBasis
from lightning_vfe.models.flow.edges import Edges, sum_images
from lightning_vfe.physics.cell import PeriodicCell
from tests.helpers.flows import random_protons


@pytest.mark.parametrize("lmax", [1, 2, 4])
def test_gradient_against_autograd(lmax):
    """This is also the test of the factor (2 l + 1) sqrt(l) of the gradients of solid harmonics."""
    cell = PeriodicCell(3, 1.2)
    basis = EdgeBasis(cell, lmax, num_radial=4, cutoff=1.1 * cell.length)
    x = random_protons(cell, 1)
    functions, neighbours = basis(x, with_gradient=True)
    plain, _ = basis(x, with_gradient=False)
    assert torch.equal(functions.angular, plain.angular) and torch.equal(functions.radial, plain.radial)
    angular = functions.angular_gradient.unsqueeze(-1) * functions.radial[..., None, None, :]
    terms = angular + functions.outward.unsqueeze(-1) * functions.radial_slope[..., None, None, :]
    terms = sum_images(terms, neighbours.pairs)  # (1, N_i, N_j, 3, lm, b)

    def of_pairs(y):
        functions, neighbours = basis(y, with_gradient=False)
        return sum_images(functions.angular.unsqueeze(-1) * functions.radial.unsqueeze(-2), neighbours.pairs)

    jacobian = torch.autograd.functional.jacobian(of_pairs, x).squeeze(5)[0]  # (N_i, N_j, lm, b, N, 3)
    for i, j in itertools.product(range(3), repeat=2):
        # Column x_j of a pair (i, j); for j = i the two ends of an atom's own images move together.
        expected = jacobian[i, j, :, :, j].movedim(-1, 0)
        own = terms[0, i, j] if i != j else terms[0, i, j] * 0.0
        torch.testing.assert_close(own, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("fraction", [0.4, 0.9, 1.6])
def test_all_images_within_the_cutoff(fraction):
    """The list of edges against a plain loop over many lattice vectors, with cutoffs below L/2 and above L."""
    cell = PeriodicCell(2, 1.0)
    cutoff = fraction * cell.length
    x = random_protons(cell, 1) + torch.tensor([0.0, 3.0, -2.0]) * cell.length
    neighbours = Edges(cell, cutoff)(x)
    vectors = neighbours.vectors.flatten(0, 2)
    used = vectors.norm(dim=-1) < cutoff
    lattice = torch.tensor(list(itertools.product(range(-8, 9), repeat=3))) * cell.length
    assert torch.equal(neighbours.senders, neighbours.pairs % 2)
    for pair, (i, j) in enumerate(itertools.product(range(2), repeat=2)):
        distances = (x[0, j] - x[0, i] + lattice).norm(dim=-1)
        expected = distances[(distances < cutoff) & (distances > 0)].sort().values
        torch.testing.assert_close(vectors[used & (neighbours.pairs == pair)].norm(dim=-1).sort().values, expected)


def test_values_are_spherical_harmonics():
    """One pair, alone in a large cell: phi = q^-l S_lm(r) R_b(r^2)."""
    cell = PeriodicCell(2, 10.0)
    basis = EdgeBasis(cell, lmax=2, num_radial=3, cutoff=9.0)
    vector = torch.tensor([1.0, -4.0, 2.0])
    functions, _ = basis(torch.stack([torch.zeros(3), vector]).unsqueeze(0), with_gradient=False)
    value = torch.outer(functions.angular[0, 0, 0], functions.radial[0, 0, 0])
    squared = vector.square().sum()
    q = torch.sqrt(squared + basis.epsilon**2)
    radial = torch.exp(-0.5 * ((q - torch.tensor([0.0, 4.5, 9.0])) / 4.5).square()) * (1 - squared / 81.0) ** 3
    powers = torch.tensor([0.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0])
    angular = o3.spherical_harmonics([0, 1, 2], vector, normalize=False, normalization="component")
    torch.testing.assert_close(value, torch.outer(angular * q**-powers, radial))
