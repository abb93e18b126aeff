"""The gradient of the proton density, and clipping, against the derivatives of F itself.

All samples are images of a uniform grid: an average of a periodic analytic function over such a grid converges
exponentially, so that the estimator has neither noise nor bias here, and is compared with F to many digits.
"""

import math

import pytest
import torch

from lightning_vfe.training.variational.objective import Groups, clip_deviation, flow_loss, flow_residuals
from tests.helpers.derivatives import central_differences
from tests.helpers.processes import one_process, run_processes

NO_CLIPPING = 1e9
TWO_PI = 2.0 * math.pi

KT = 0.3


def log_density(x, parameters):
    """p(x) = dz/dx of z = x + sum_n a_n sin(2 pi n x + b_n) / (2 pi n) on the unit circle."""
    a, b = parameters.reshape(2, -1, 1)
    n = torch.arange(1, len(a) + 1).unsqueeze(-1)
    return torch.log1p((a * torch.cos(TWO_PI * n * x + b)).sum(0))


def to_target(z, parameters):
    """The x with z(x) = z, by Newton's method."""
    a, b = parameters.reshape(2, -1, 1)
    n = torch.arange(1, len(a) + 1).unsqueeze(-1)
    x = z.clone()
    for _ in range(60):
        value = x + (a * torch.sin(TWO_PI * n * x + b) / (TWO_PI * n)).sum(0)
        x = x - (value - z) / torch.exp(log_density(x, parameters))
    return x


def proton_energy(x):
    return 0.4 * torch.cos(TWO_PI * x) - 0.2 * torch.sin(2.0 * TWO_PI * x)


FLOW_PARAMETERS = [0.4, -0.2, 0.7, -0.5]
GRID = (torch.arange(400, dtype=torch.float64) + 0.5) / 400


def free_energy(parameters):
    x = to_target(GRID, parameters)
    return (KT * log_density(x, parameters) + proton_energy(x)).mean()


def kT_of(log_prob):
    return torch.full_like(log_prob, KT)


def one_group(values):
    return Groups.one(len(values), values)


def flow_gradient(clip_width=NO_CLIPPING, gather=one_process, part=slice(None), outliers=0.0):
    parameters = torch.tensor(FLOW_PARAMETERS, requires_grad=True)
    x = to_target(GRID, parameters.detach())
    energy = proton_energy(x)
    energy[:2] += outliers
    log_prob, energy = log_density(x, parameters)[part], energy[part]
    loss = flow_loss(log_prob, energy, kT_of(log_prob), clip_width, gather, one_group(log_prob))
    (gradient,) = torch.autograd.grad(loss, parameters)
    return gradient


def test_flow_gradient_is_that_of_the_free_energy():
    expected = central_differences(free_energy, torch.tensor(FLOW_PARAMETERS))
    assert expected.abs().min() > 1e-3
    error = (flow_gradient() - expected).abs().max().item()
    assert error < 1e-9, f"largest error {error:.1e}"


def test_flow_gradient_vanishes_at_the_boltzmann_distribution():
    log_prob = torch.randn(50, requires_grad=True)
    energy = 3.0 - KT * log_prob.detach()
    loss = flow_loss(log_prob, energy, kT_of(log_prob), 5.0, one_process, one_group(log_prob))
    (gradient,) = torch.autograd.grad(loss, log_prob)
    assert gradient.abs().max() < 1e-15


def test_noise_of_the_energy_leaves_the_flow_gradient_unbiased():
    """A mean over few electrons, independent of the proton positions, only adds noise."""
    parameters = torch.tensor(FLOW_PARAMETERS, requires_grad=True)
    x = to_target(GRID, parameters.detach())
    log_prob = log_density(x, parameters)
    gradients = []
    for _ in range(200):
        noisy = proton_energy(x) + 0.5 * torch.randn(len(x))
        loss = flow_loss(log_prob, noisy, kT_of(log_prob), NO_CLIPPING, one_process, one_group(log_prob))
        gradients.append(torch.autograd.grad(loss, parameters, retain_graph=True)[0])
    gradients = torch.stack(gradients)
    error = gradients.std(0) / math.sqrt(len(gradients))
    assert ((gradients.mean(0) - flow_gradient()).abs() < 4.0 * error).all()


def test_clipping_around_the_median():
    deviation = torch.tensor([[0.0, 1.0, -1.0], [2.0, -2.0, 94.0], [0.5, -0.5, 0.0]])
    spread = 101.0 / 9.0  # mean absolute deviation around the median 0
    for _ in range(3):
        spread = (7.0 + min(94.0, 2.0 * spread)) / 9.0  # of values clipped to twice the last one
    assert 2.0 < 2.0 * spread < 2.3

    def clip(values, width):
        return clip_deviation(values, width, one_process, one_group(values))

    torch.testing.assert_close(clip(deviation, 2.0), deviation.clamp(max=2.0 * spread))
    torch.testing.assert_close(clip(deviation, 1e3), deviation, rtol=0, atol=0)
    shifted = clip(deviation + 7.0, 2.0) - 7.0
    torch.testing.assert_close(shifted, deviation.clamp(max=2.0 * spread))


def test_clipping_around_the_median_of_each_group():
    """Groups in mixed order, as walkers are dealt, with medians and widths of their own."""
    groups = Groups(torch.tensor([1, 0, 0, 1, 1, 0]), 2, torch.ones(6))
    deviation = torch.tensor([100.0, 0.0, 1.0, 101.0, 401.0, -8.0])
    # medians 0 and 101; distances 0, 1, 8 and 1, 0, 300; clipped to 2.5 spreads
    spreads = [9.0 / 3.0, 301.0 / 3.0]
    for _ in range(3):
        spreads = [(1.0 + min(far, 2.5 * spread)) / 3.0 for far, spread in zip((8.0, 300.0), spreads, strict=True)]
    low, high = -2.5 * spreads[0], 101.0 + 2.5 * spreads[1]
    expected = torch.tensor([100.0, 0.0, 1.0, 101.0, high, low])
    torch.testing.assert_close(clip_deviation(deviation, 2.5, one_process, groups), expected)
    several = torch.stack([deviation, deviation], dim=1)
    torch.testing.assert_close(clip_deviation(several, 2.5, one_process, groups), torch.stack([expected] * 2, dim=1))


def test_outlier_in_a_small_group_is_clipped():
    """16 samples for each twist: an outlier widens the bounds of its own group to a third of itself in one round."""
    groups = Groups(torch.arange(256) % 16, 16, torch.ones(256))
    deviation = torch.randn(256)
    deviation[17] = 200.0
    clipped = clip_deviation(deviation, 5.0, one_process, groups)
    assert clipped[17] < 12.0
    others = torch.arange(256) != 17
    torch.testing.assert_close(clipped[others], deviation[others], rtol=0, atol=0)


def test_energies_are_clipped_in_the_scale_of_their_group():
    """Two state points whose energies differ by a factor of 100: the residuals differ by it, too."""
    groups, kT = Groups(torch.arange(40) % 2, 2, torch.ones(40)), torch.ones(40)
    factor = torch.where(torch.arange(40) % 2 == 0, 1.0, 100.0)
    energy, log_prob = torch.randn(40), torch.zeros(40)
    energy[::20] += 50.0
    plain = flow_residuals(log_prob, energy, kT, 5.0, one_process, groups)
    scaled = flow_residuals(log_prob, energy * factor, kT, 5.0, one_process, groups) / factor
    assert plain.abs().max() < 30.0
    torch.testing.assert_close(scaled, plain)


def test_clipping_bounds_the_flow_gradient():
    flow_change = (flow_gradient(5.0, outliers=1e6) - flow_gradient()).abs().max()
    assert flow_change < 0.1 * (flow_gradient(outliers=1e6) - flow_gradient()).abs().max()


@pytest.mark.parametrize("clip_width", [NO_CLIPPING, 0.7])
def test_flow_gradient_on_several_processes(clip_width):
    gradients = run_processes(
        lambda rank, gather: flow_gradient(clip_width, gather, slice(100 * rank, 100 * (rank + 1))), 4
    )
    expected = flow_gradient(clip_width)
    torch.testing.assert_close(torch.stack(gradients).mean(0), expected, rtol=0, atol=1e-12)
