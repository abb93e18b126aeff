"""What the flow asks of the machine: how many operations, and none that waits for the device."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_vfe.models.flow import inverse
from lightning_vfe.models.flow.equivariant_flow import EquivariantFlow
from lightning_vfe.models.flow.inverse import invert
from lightning_vfe.models.flow.newton import Solver
from lightning_vfe.models.flow.step import StepResult
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.system import System
from tests.helpers.flows import make_flow, random_protons
from tests.helpers.states import states_at

# Their results have a size that depends on values, or the host reads a value.
WAITING = {
    "_local_scalar_dense",
    "nonzero",
    "nonzero_static",
    "masked_select",
    "unique_consecutive",
    "_unique2",
    "is_nonzero",
    "equal",
    "_linalg_check_errors",
}


class Operations(TorchDispatchMode):
    """Counts all operations but views, and notes those whose CUDA version waits for the device."""

    def __init__(self):
        super().__init__()
        self.counts, self.waiting = Counter(), Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        if not func.is_view and name != "_unsafe_view":
            self.counts[name] += 1
        masks = name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if name in WAITING or masks or (name == "repeat_interleave" and "Tensor" in str(func)):
            self.waiting[name] += 1
        return func(*args, **(kwargs or {}))


def operations(function):
    with torch.no_grad(), Operations() as counted:
        function()
    return counted


def default_flow(num_atoms, **sizes):
    """A flow of the default sizes, all walkers at once."""
    flow = EquivariantFlow(System(num_atoms), StatePoint(1.31, 5000.0), max_chunk_elements=2**30, **sizes)
    with torch.no_grad():
        flow.networks[0].readout.normal_(std=0.3)
        flow.contact.amplitude.fill_(0.03)
    return flow


@pytest.mark.parametrize("num_atoms", [2, 8, 14, 16, 54])
def test_a_displacement_takes_at_most_150_operations_for_any_number_of_walkers(num_atoms):
    cell, flow = PeriodicCell(num_atoms, 1.31), default_flow(num_atoms)
    found = []
    for walkers in (2, 64):
        x, states = random_protons(cell, walkers), states_at(cell, walkers)
        found.append(operations(lambda x=x, states=states: flow.displacement(x, states)))
    assert found[0].counts == found[1].counts
    assert found[0].counts.total() <= 150
    assert not found[0].waiting


@pytest.mark.parametrize("name", ["to_base", "to_base_midpoint"])
def test_the_log_determinant_takes_as_many_operations_for_any_number_of_walkers(name):
    cell, flow = PeriodicCell(8, 1.31), default_flow(8)
    found = []
    for walkers in (2, 64):
        x, states = random_protons(cell, walkers), states_at(cell, walkers)
        found.append(operations(lambda x=x, states=states: getattr(flow, name)(x, states)))
    assert found[0].counts == found[1].counts
    assert found[0].counts.total() <= 300
    assert not found[0].waiting


def test_an_inverse_that_does_not_wait_takes_as_many_operations_for_any_walkers():
    """Also where some of them have no inverse."""
    cell, flow = PeriodicCell(2, 1.31), default_flow(2, num_steps=2, num_channels=4)
    found = []
    for walkers in (8, 24):
        z, states = random_protons(cell, walkers), states_at(cell, walkers)
        z[1] = torch.nan
        found.append(operations(lambda z=z, states=states: flow.from_base(z, states, waits=False)))
    assert found[0].counts == found[1].counts
    assert not found[0].waiting


def test_waiting_operations_are_found():
    """The counter of the tests above sees what it is there for."""
    mask = torch.tensor([True, False])
    for function in (
        lambda: bool(mask.any()),
        lambda: mask.nonzero(),
        lambda: mask[mask],
        lambda: torch.linalg.inv(torch.eye(2)),
    ):
        assert operations(function).waiting


@pytest.mark.parametrize("strength", [0.5, 1.5])
def test_the_inverse_is_the_same_without_waiting(strength):
    cell = PeriodicCell(4, 1.25)
    flow, z, states = make_flow(cell, strength=strength), random_protons(cell, 12), states_at(cell, 12)
    waiting, blind = flow.from_base(z, states, waits=True), flow.from_base(z, states, waits=False)
    assert waiting.converged.all()
    assert blind.converged.all()
    torch.testing.assert_close(blind.x, waiting.x, atol=1e-8, rtol=0)
    assert blind.residual.max() < 1e-9 * cell.rs


def step_at_four(condition):
    """x -> tanh(3 (x - 4)), flat everywhere but around 4."""

    def step(x, with_jacobian):
        value = torch.tanh(3.0 * (x - 4.0))
        slope = 3.0 * (1.0 - value.square()) - 1.0
        jacobian = torch.diag_embed(slope.flatten(1)).unflatten(1, x.shape[1:]) if with_jacobian else None
        return StepResult(value, jacobian)

    return [step]


@pytest.mark.parametrize("waits", [True, False])
def test_newton_steps_start_from_another_place_too(waits):
    target = torch.tensor([0.3, -0.5])[:, None, None].expand(2, 1, 3)
    condition, solver = torch.zeros(2, 2), Solver(1e-10, waits=waits)
    assert not invert(step_at_four, target, condition, solver).converged.any()
    found = invert(step_at_four, target, condition, solver, other_start=lambda z: z + 3.8)
    assert found.converged.all()
    torch.testing.assert_close(found.x, 4.0 + torch.atanh(target) / 3.0, atol=1e-8, rtol=0)


def test_walkers_without_an_inverse_cost_a_bounded_amount():
    """Half of the walkers cannot be inverted: they may cost a few times what the others do, once."""
    rows = []

    def maps(condition):
        def step(x, with_jacobian):
            rows.append((6 if with_jacobian else 1) * len(x))
            value = torch.tanh(1.5 * x)
            slope = 1.5 * (1.0 - value.square()) - 1.0
            jacobian = torch.diag_embed(slope.flatten(1)).unflatten(1, x.shape[1:]) if with_jacobian else None
            return StepResult(value, jacobian)

        return [step]

    costs = []
    for largest in (0.9, 1.8):
        target = torch.linspace(0.1, largest, 64)[:, None, None].expand(64, 1, 3)
        rows.clear()
        found = invert(maps, target, torch.zeros(64, 2), Solver(1e-10))
        costs.append(sum(rows))
    assert 20 < int(found.converged.sum()) < 40
    assert costs[1] < 5 * costs[0]


def test_newton_steps_are_for_a_fixed_number_where_nobody_looks():
    arrived, residual = torch.zeros(640, dtype=torch.bool), torch.arange(640.0)
    rows = inverse._rest(residual, arrived, waits=False)
    assert rows[:3].tolist() == [0, 1, 2]
    assert len(rows) == len(inverse._rest(residual, ~arrived, waits=False)) == 640 * inverse.FIXED_REST
    assert len(inverse._rest(residual, arrived, waits=True)) == 640
    assert inverse._rest(residual, ~arrived, waits=True) is None


def test_walkers_at_once():
    """The number is bounded by the cache of a CPU, and by what was asked for."""
    flow, x = make_flow(PeriodicCell(8, 1.25)), torch.zeros(1, 8, 3)
    assert 1 < flow.batch_size(x) < 1000
    assert make_flow(PeriodicCell(8, 1.25), max_chunk_elements=1).batch_size(x) == 1
    assert make_flow(PeriodicCell(8, 1.25), max_chunk_elements=2**40).batch_size(x, with_gradients=True) > 10**5
