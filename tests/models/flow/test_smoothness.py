"""Derivatives at the cutoff, and where protons meet."""

import torch

from lightning_vfe.models.flow.condition import NUM_CONDITIONS
from lightning_vfe.physics.cell import PeriodicCell
from tests.helpers.flows import make_flow
from tests.helpers.states import states_at

CUTOFF = 2.6
"""In bohr."""


def _pair(distances):
    """Two protons at distances along a direction off the axes. # (W,) -> (W, 2, 3)"""
    direction = torch.tensor([0.6, 0.0, 0.8])
    return torch.stack([torch.zeros(len(distances), 3), distances.unsqueeze(-1) * direction], dim=-2)


def _derivatives(function, distances):
    """Value, first and second derivative of function(distance), entry by entry."""
    distances = distances.clone().requires_grad_()
    value = function(distances)
    (first,) = torch.autograd.grad(value.sum(), distances, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), distances)
    return value.detach(), first.detach(), second


def test_second_derivative_is_continuous_at_the_cutoff():
    """z(x) is C2: the jump between both sides of the cutoff vanishes linearly with the distance between them."""
    cell = PeriodicCell(2, 6.0)  # L = 12.2 bohr: one image at a time
    flow = make_flow(cell, strength=3.0, num_steps=1, cutoff=CUTOFF / cell.rs)
    gaps = torch.tensor([1e-2, 1e-3, 1e-4])

    def z(distances):
        # The contact block has a cutoff of its own, far away; look at the messages only.
        x, condition = _pair(distances) / cell.rs, torch.ones(len(distances), NUM_CONDITIONS)
        return cell.rs * (flow.networks[0](x, condition, with_jacobian=False).image - x)[:, 1, 2]

    inside, outside = _derivatives(z, CUTOFF - gaps), _derivatives(z, CUTOFF + gaps)
    assert _derivatives(z, torch.tensor([CUTOFF - 0.5]))[2].abs() > 1e-2  # the message reaches as far as that
    for order, power in ((0, 3), (1, 2), (2, 1)):
        jumps = (inside[order] - outside[order]).abs()
        ratios = jumps[:-1] / jumps[1:]
        torch.testing.assert_close(ratios, torch.full_like(ratios, 10.0**power), rtol=0.1, atol=0)


def test_force_is_continuous_at_both_cutoffs():
    """d ln p / dx, which moves the walkers, has no jump where a neighbour enters."""
    cell = PeriodicCell(2, 3.0)
    flow, states = make_flow(cell, cutoff=CUTOFF / cell.rs), states_at(cell, 1)
    contact_cutoff = flow.contact.edges.cutoff * cell.rs
    for cutoff in (CUTOFF, contact_cutoff):
        forces = []
        for gap in (-1e-7, 1e-7):
            x = _pair(torch.tensor([cutoff + gap])).requires_grad_()
            (force,) = torch.autograd.grad(flow.to_base(x, states).log_abs_det_dzdx.sum(), x)
            forces.append(force)
        torch.testing.assert_close(*forces, rtol=0, atol=1e-4)


def test_protons_that_meet():
    """No NaN at exactly equal positions, and the same derivatives from both sides."""
    cell = PeriodicCell(3, 1.5)
    flow = make_flow(cell)
    x = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [2.0, 0.5, 1.5]]).requires_grad_()
    result = flow.to_base(x, states_at(cell))
    gradients = torch.autograd.grad(result.log_abs_det_dzdx, [x, *flow.parameters()])
    assert torch.isfinite(result.log_abs_det_dzdx)
    assert torch.isfinite(result.z).all()
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    torch.testing.assert_close(gradients[0][0], gradients[0][1], rtol=0, atol=1e-10)
    torch.testing.assert_close(result.z[0], result.z[1], rtol=0, atol=1e-12)

    def log_det(distances):
        protons = torch.cat([_pair(distances), x[2:].expand(len(distances), 1, 3)], 1)
        return flow.to_base(protons, states_at(cell, len(distances))).log_abs_det_dzdx

    with torch.no_grad():
        steps = torch.arange(-4, 5) * 1e-3
        third = log_det(steps).diff(n=3)
    assert third.abs().max() < 1e-6  # a kink or a cusp would be of the order of the step


def test_own_images_alone_do_nothing():
    """N = 1: an atom's images are arranged like a cube around it, so nothing moves, and nothing breaks."""
    cell = PeriodicCell(1, 1.0)
    flow, states = make_flow(cell, cutoff=2.2 * cell.length / cell.rs), states_at(cell, 4)
    result = flow.to_base(torch.rand(4, 1, 3), states)
    assert flow.displacement(torch.rand(4, 1, 3), states).abs().max() < 1e-12
    assert result.log_abs_det_dzdx.abs().max() < 1e-12
