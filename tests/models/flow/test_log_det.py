"""The carried Jacobian and its log-determinant against slower ways to the same numbers."""

import pytest
import torch

from lightning_vfe.physics.cell import PeriodicCell
from tests.helpers.flows import make_flow, random_protons
from tests.helpers.states import states_at

CASES = {
    "default kind": (3, {}),
    "one layer": (4, {"num_layers": 1}),
    "three layers": (3, {"num_blocks": 2, "num_steps": 1, "num_layers": 3}),
    "hidden 2e": (3, {"hidden_lmax": 2, "edge_lmax": 3, "num_channels": 2}),
    "hidden above edges": (3, {"num_steps": 1, "num_layers": 3, "hidden_lmax": 3, "edge_lmax": 1, "num_channels": 2}),
    "one layer, hidden 2e": (3, {"num_layers": 1, "hidden_lmax": 2, "edge_lmax": 1}),
    "pair": (2, {"edge_lmax": 1}),
    "alone": (1, {}),
}


@pytest.fixture(params=CASES, ids=lambda name: name.replace(" ", "-"))
def case(request):
    num_atoms, sizes = CASES[request.param]
    cell = PeriodicCell(num_atoms, 1.3)
    return make_flow(cell, **sizes), random_protons(cell, 3), states_at(cell, 3)


def _dense(flow, x, states, jacobian):
    """ln|det| and sign of one Jacobian (N, 3, N, 3) per walker."""
    matrices = []
    for w, walker in enumerate(x):
        matrix = jacobian(lambda y, state=states[w]: flow.displacement(y, state) + y, walker)
        matrices.append(matrix.flatten(2).flatten(0, 1))
    return torch.linalg.slogdet(torch.stack(matrices))


def _finite_differences(function, x, step=1e-4):
    """Central differences of fourth order. # (N, 3, N, 3)"""
    columns = []
    for index in range(x.numel()):
        shift = torch.zeros(x.numel()).index_fill(0, torch.tensor(index), step).view(x.shape)
        near, far = (function(x + k * shift) - function(x - k * shift) for k in (1, 2))
        columns.append((8.0 * near - far) / (12.0 * step))
    return torch.stack(columns, dim=-1).view(*x.shape, *x.shape)


def test_against_autograd(case):
    flow, x, states = case
    result = flow.to_base(x, states)
    sign, log_abs_det = _dense(flow, x, states, torch.autograd.functional.jacobian)
    torch.testing.assert_close(result.log_abs_det_dzdx, log_abs_det, rtol=0, atol=1e-10)
    assert torch.equal(result.sign_det_dzdx, sign)
    if flow.cell.num_atoms > 1:
        assert log_abs_det.abs().max() > 0.1  # the map does something


def test_against_finite_differences(case):
    flow, x, states = case
    with torch.no_grad():
        result = flow.to_base(x, states)
        sign, log_abs_det = _dense(flow, x, states, _finite_differences)
    torch.testing.assert_close(result.log_abs_det_dzdx, log_abs_det, rtol=0, atol=1e-7)
    assert torch.equal(result.sign_det_dzdx, sign)


def test_value_is_the_same_with_and_without_the_jacobian(case):
    flow, x, states = case
    torch.testing.assert_close(flow.to_base(x, states).z, x + flow.displacement(x, states), rtol=0, atol=1e-13)


def test_sign_of_a_map_that_folds():
    """A displacement too strong to be invertible gets a -1, and ln|det| stays right there."""
    cell = PeriodicCell(3, 1.3)
    flow, x, states = make_flow(cell, seed=2, strength=8.0), random_protons(cell, 40), states_at(cell, 40)
    with torch.no_grad():
        result = flow.to_base(x, states)
    assert (result.sign_det_dzdx < 0).any()
    assert (result.sign_det_dzdx > 0).any()
    sign, log_abs_det = _dense(flow, x, states, torch.autograd.functional.jacobian)
    assert torch.equal(result.sign_det_dzdx, sign)
    torch.testing.assert_close(result.log_abs_det_dzdx, log_abs_det, rtol=0, atol=1e-8)


def test_gradients_against_finite_differences(case):
    """First derivatives of ln|det| and of z, with respect to the protons and to every parameter."""
    flow, x, states = case

    def number():
        result = flow.to_base(x, states)
        return result.log_abs_det_dzdx.sum() + (result.z * weights).sum()

    weights = torch.randn_like(x)
    x.requires_grad_()
    variables = [x, *flow.parameters()]
    gradients = torch.autograd.grad(number(), variables)
    for variable, gradient in zip(variables, gradients, strict=True):
        direction = torch.randn_like(variable)
        step = 1e-5 / direction.norm()
        values = []
        with torch.no_grad():
            for sign in (1.0, -1.0):
                variable += sign * step * direction
                values.append(number())
                variable -= sign * step * direction
        expected = (values[0] - values[1]) / (2.0 * step)
        torch.testing.assert_close((gradient * direction).sum(), expected, rtol=1e-6, atol=1e-6)
