"""The block that opens the cores: order of distances, depth of the core, positive determinants."""

import math

import pytest
import torch

from lightning_vfe.models.flow.condition import NUM_CONDITIONS
from lightning_vfe.models.flow.contact import GAIN, LARGEST_AMPLITUDE, SMALLEST_AMPLITUDE, WIDTHS, ContactBlock
from lightning_vfe.physics.cell import PeriodicCell
from tests.helpers.flows import random_protons

MIXTURES = [(8.0, 0.0, 0.0), (0.0, 8.0, 0.0), (0.0, 0.0, 8.0), (0.0, 0.0, 0.0), (4.0, 0.0, 4.0)]

# Two protons in a cell made for many: a pair that sees no images.
LARGE_CELL = PeriodicCell(500, 5.0)


def _block(cell, amplitude, logits=(0.0, 0.0, 0.0)):
    num_atoms = 2 if cell is LARGE_CELL else cell.num_atoms
    edge = (cell.num_atoms / num_atoms) ** (1 / 3)
    block = ContactBlock(PeriodicCell(num_atoms, edge), 2.0)
    with torch.no_grad():
        block.amplitude.fill_(amplitude / GAIN)
        block.logits.copy_(torch.tensor(logits))
    return block


def _step(block, cell, x, with_jacobian=False):
    """The image in units of rs and the Jacobian of the displacements, of protons in bohr."""
    return block(x / cell.rs, torch.zeros(len(x), NUM_CONDITIONS), with_jacobian)


def _mapped_distances(block, cell, distances):
    """Distance in z of two isolated protons at these distances in x, in bohr. # (W,)"""
    x = torch.zeros(len(distances), 2, 3)
    x[:, 1, 0] = distances
    with torch.no_grad():
        z = cell.rs * _step(block, cell, x).image
    return z[:, 1, 0] - z[:, 0, 0]


@pytest.mark.parametrize("amplitude", [-1e4, -1.0, 1.0, 5.0, 12.0, 1e4])
@pytest.mark.parametrize("logits", MIXTURES)
def test_a_pair_keeps_the_order_of_distances(amplitude, logits):
    """For every amplitude and mixture, d r_z / d r_x > 0: an isolated pair never folds."""
    cell = LARGE_CELL
    distances = torch.linspace(0.0, 2.2 * cell.rs, 600)
    mapped = _mapped_distances(_block(cell, amplitude, logits), cell, distances)
    assert mapped[0].abs() < 1e-12
    assert (mapped.diff() > 0).all()
    # Not even locally: the growth of ln r_z with ln r_x stays well above zero.
    growth = mapped[1:].log().diff() / distances[1:].log().diff()
    assert growth.min() > 0.4


def test_distance_formula():
    """r_z = r (1 + g) / (1 + g exp(t)), written out for a mixture of equal weights."""
    cell = LARGE_CELL
    distances = torch.linspace(0.1, 8.0, 20)
    taper = (1.0 - (distances / 10.0) ** 2) ** 3
    bells = torch.stack([torch.exp(-((distances / (width * cell.rs)) ** 2)) * taper for width in WIDTHS])
    amplitude = LARGEST_AMPLITUDE * math.tanh(5.0 / LARGEST_AMPLITUDE)
    expected = distances * (1.0 + bells[-1]) / (1.0 + bells[-1] * torch.exp(amplitude * bells.mean(0)))
    torch.testing.assert_close(_mapped_distances(_block(cell, 5.0), cell, distances), expected)


def test_depth_of_the_core():
    """ln det of a pair at contact is 3 ln[2 / (1 + exp(a))]: about -3 a, as deep as a Boltzmann factor asks for."""
    cell = LARGE_CELL
    x = torch.tensor([[0.0, 0.0, 0.0], [1e-6, 0.0, 0.0]]).unsqueeze(0)
    for raw in (-1e4, -1.0, 3.0, 10.0, 1e4):
        high = LARGEST_AMPLITUDE * math.tanh(raw / LARGEST_AMPLITUDE)
        low = SMALLEST_AMPLITUDE * math.tanh(raw / SMALLEST_AMPLITUDE)
        amplitude = high if raw > 0 else low
        jacobian = _step(_block(cell, raw), cell, x, with_jacobian=True).jacobian.reshape(6, 6)
        sign, log_abs_det = torch.linalg.slogdet(torch.eye(6) + jacobian)
        assert sign == 1
        expected = torch.tensor(3.0 * math.log(2.0 / (1.0 + math.exp(amplitude))))
        torch.testing.assert_close(log_abs_det, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("amplitude", [-2.0, 3.0, 8.0])
def test_positive_in_a_crowd(amplitude):
    """Many protons at random, some of them almost on top of each other."""
    cell = PeriodicCell(8, 1.25)
    x = random_protons(cell, 200)
    x[:100, 1:3] = x[:100, :1] + 0.2 * torch.randn(100, 2, 3)
    with torch.no_grad():
        jacobian = _step(_block(cell, amplitude), cell, x, with_jacobian=True).jacobian.flatten(1, 2)
    sign, log_abs_det = torch.linalg.slogdet(torch.eye(24) + jacobian)
    assert (sign > 0).all()
    assert log_abs_det.std() > 0.5
