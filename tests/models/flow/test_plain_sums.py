"""Both kinds of blocks against plain sums over lattice vectors, written out edge by edge."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from e3nn import o3

from lightning_vfe.models.flow.block import DISPLACEMENT_SCALE
from lightning_vfe.models.flow.contact import GAIN, LARGEST_AMPLITUDE, SMALLEST_AMPLITUDE, WIDTHS
from lightning_vfe.models.flow.couplings import path_couplings
from lightning_vfe.models.flow.edge_basis import CORE_LENGTH
from lightning_vfe.physics.cell import PeriodicCell
from tests.helpers.flows import make_flow, random_protons


def edges_within(cell, x, cutoff):
    """r = x_j - x_i + L n with 0 < |r| < cutoff of one walker, with their i and j. # (E, 3), (E,), (E,)"""
    reach = math.ceil(cutoff / cell.length + (x.max() - x.min()) / cell.length) + 1
    lattice = torch.tensor(list(itertools.product(range(-reach, reach + 1), repeat=3))) * cell.length
    vectors = (x.unsqueeze(0) - x.unsqueeze(1)).unsqueeze(2) + lattice  # (N_i, N_j, n, 3)
    inside = vectors.norm(dim=-1) < cutoff
    inside[:, :, (lattice == 0).all(-1)] &= ~torch.eye(len(x), dtype=torch.bool).unsqueeze(-1)
    receivers, senders, _ = inside.nonzero(as_tuple=True)
    return vectors[inside], receivers, senders


def at(parameter, slopes, condition):
    """A parameter at the state point of one walker."""
    return parameter + torch.tensordot(condition, slopes, dims=1)


def contact(flow, cell, x, condition):
    """Delta of the contact block for one walker. # (N, 3)"""
    block, cutoff = flow.contact, flow.contact.edges.cutoff
    raw = GAIN * at(block.amplitude, block.amplitude_slopes, condition)
    bound = LARGEST_AMPLITUDE if raw > 0 else SMALLEST_AMPLITUDE
    weights = bound * torch.tanh(raw / bound) * at(block.logits, block.logit_slopes, condition).softmax(0)
    vectors, receivers, _ = edges_within(cell, x, cutoff)
    squared = vectors.square().sum(-1, keepdim=True)
    bells = torch.exp(-squared / torch.tensor(WIDTHS).square()) * (1.0 - squared / cutoff**2) ** 3
    attraction = (bells @ weights).exp() * bells[:, -1]
    excess = attraction - bells[:, -1]
    total = torch.zeros(len(x)).index_add(0, receivers, attraction)
    moved = torch.zeros_like(x).index_add(0, receivers, excess.unsqueeze(-1) * vectors)
    return 0.5 * moved / (1.0 + total).unsqueeze(-1)


def network(block, cell, x, condition, lmax, hidden_lmax):
    """Delta of a network of two layers for one walker. # (N, 3)"""
    cutoff, num_radial = block.basis.edges.cutoff, block.basis.num_radial
    vectors, receivers, senders = edges_within(cell, x, cutoff)
    squared = vectors.square().sum(-1, keepdim=True)
    q = (squared + CORE_LENGTH**2).sqrt()
    degrees = torch.tensor([math.isqrt(component) for component in range((lmax + 1) ** 2)])
    angular = o3.spherical_harmonics(list(range(lmax + 1)), vectors, False, "component") / q**degrees
    width = cutoff / (num_radial - 1)
    radial = torch.exp(-0.5 * ((q - torch.linspace(0.0, cutoff, num_radial)) / width).square())
    radial = radial * (1.0 - squared / cutoff**2) ** 3
    hidden, edges = natural_irreps(hidden_lmax), natural_irreps(lmax)
    features = torch.ones(len(x), 1, block.readout.shape[-1])
    irreps, total = o3.Irreps("1x0e"), torch.zeros(())
    for message, update in zip(block.messages, block.updates, strict=True):
        summed = torch.zeros(len(x), hidden.dim, features.shape[-1])
        for path, weight in zip(path_couplings(irreps, hidden, edges), message.weight, strict=True):
            weights = radial @ weight  # (E, C)
            terms = torch.einsum("loa,el,eac,ec->eoc", path.couplings, angular, features[senders], weights)
            summed = summed.index_add(0, receivers, terms / cutoff**1.5)
        total = total + updated(update, summed, condition, hidden_lmax)
        features, irreps = total, hidden
    readout = at(block.readout, block.readout_slopes, condition)
    return DISPLACEMENT_SCALE * (total[:, 1:4] @ readout.T).squeeze(-1)


def natural_irreps(lmax):
    return o3.Irreps([(1, (degree, (-1) ** degree)) for degree in range(lmax + 1)])


def updated(update, message, condition, hidden_lmax):
    """Features of a message. # (N, A, C)"""
    bias = at(update.bias, update.bias_slopes, condition).squeeze(-1)
    gate_bias = at(update.gate_bias, update.gate_bias_slopes, condition).squeeze(-1)
    scalars = message[:, 0]
    parts = [torch.nn.functional.silu(scalars @ update.weight[0].T + bias).unsqueeze(1)]
    for degree in range(1, hidden_lmax + 1):
        gate = 2.0 * torch.sigmoid(scalars @ update.gate_weight[degree - 1].T + gate_bias[degree - 1])
        mixed = message[:, degree**2 : (degree + 1) ** 2] @ update.weight[degree].T
        parts.append(mixed * gate.unsqueeze(1))
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("clustered", [False, True], ids=["random", "clustered"])
@pytest.mark.parametrize(
    ("num_atoms", "cutoff", "lmax", "hidden_lmax"),
    [(4, 2.5, 2, 1), (8, 2.5, 2, 1), (16, 2.5, 2, 1), (3, 0.93, 2, 1), (3, 3.25, 3, 2), (2, 4.5, 1, 2)],
)
def test_against_plain_sums(num_atoms, cutoff, lmax, hidden_lmax, clustered):
    """Cutoffs below L/2, above it, and above L; also all atoms of the cell, with two that meet, within a small ball."""
    cell = PeriodicCell(num_atoms, 1.0)
    flow = make_flow(cell, cutoff=cutoff, edge_lmax=lmax, hidden_lmax=hidden_lmax)
    x = random_protons(cell, 2)
    if clustered:
        x = x[:, :1] + 0.2 * torch.randn_like(x)
        x[1, 1] = x[1, 0]  # exactly
    condition = torch.tensor([[0.1, -0.2], [-0.05, 0.3]])
    with torch.no_grad():
        for block, plain in (
            (flow.contact, lambda *walker: contact(flow, cell, *walker)),
            (flow.networks[0], lambda *walker: network(flow.networks[0], cell, *walker, lmax, hidden_lmax)),
        ):
            expected = torch.stack([plain(*walker) for walker in zip(x, condition, strict=True)])
            found = block(x, condition, True).image - x
            assert expected.abs().max() > 1e-3
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(block(x, condition, False).image - x, expected, rtol=1e-12, atol=1e-12)
