"""The flow's interface: identity at the start, shapes, types, memory and bad input."""

import pytest
import torch

from lightning_vfe.models.flow.equivariant_flow import EquivariantFlow
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.system import System
from tests.helpers.flows import make_flow, random_protons
from tests.helpers.states import states_at

CELL = PeriodicCell(4, 1.25)
SYSTEM, REFERENCE = System(4), StatePoint(1.31, 5000.0)


def states(*leading):
    return states_at(CELL, *leading)


def test_identity_at_initialisation():
    flow, x = EquivariantFlow(SYSTEM, REFERENCE), random_protons(CELL, 3)
    result = flow.to_base(x, states(3))
    torch.testing.assert_close(result.z, x, rtol=0, atol=1e-15)  # up to the change of units
    assert torch.equal(result.log_abs_det_dzdx, torch.zeros(3))
    assert torch.equal(result.sign_det_dzdx, torch.ones(3))


def test_the_identity_can_be_left():
    """ln|det| has a gradient with respect to the last mixing and the contact amplitude."""
    flow = EquivariantFlow(SYSTEM, REFERENCE, num_channels=4)
    flow.to_base(random_protons(CELL, 3), states(3)).log_abs_det_dzdx.sum().backward()
    moving = {name for name, parameter in flow.named_parameters() if parameter.grad.abs().max() > 0}
    slopes = {"contact.amplitude_slopes", "networks.0.readout_slopes"}
    assert moving == {"contact.amplitude", "networks.0.readout"} | slopes


def test_any_leading_dimensions():
    flow, x = make_flow(CELL), random_protons(CELL, 2, 3)
    batch, single = flow.to_base(x, states(2, 3)), flow.to_base(x[1, 2], states())
    assert batch.z.shape == (2, 3, 4, 3)
    assert batch.log_abs_det_dzdx.shape == batch.sign_det_dzdx.shape == (2, 3)
    assert single.log_abs_det_dzdx.shape == ()
    torch.testing.assert_close(single.z, batch.z[1, 2], rtol=0, atol=1e-13)
    torch.testing.assert_close(single.log_abs_det_dzdx, batch.log_abs_det_dzdx[1, 2], rtol=0, atol=1e-12)
    torch.testing.assert_close(flow.to_base(x, states(2, 1)), batch, rtol=0, atol=0)  # states broadcast
    assert flow.displacement(x, states()).shape == x.shape


def test_walkers_in_turns_give_the_same_numbers():
    whole, turns = make_flow(CELL), make_flow(CELL, max_chunk_elements=1)
    x = random_protons(CELL, 5)
    assert turns.batch_size(x) == 1
    assert whole.batch_size(x) > 5
    for one, other in zip(whole.to_base(x, states(5)), turns.to_base(x, states(5)), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    moved = whole.displacement(x, states(5))
    torch.testing.assert_close(moved, turns.displacement(x, states(5)), rtol=0, atol=1e-12)


def test_float32():
    x, reference = random_protons(CELL, 6), make_flow(CELL)
    exact = reference.to_base(x, states(6))
    torch.set_default_dtype(torch.float32)
    flow = make_flow(CELL)
    flow.load_state_dict(reference.state_dict())
    result = flow.to_base(x.float(), states(6))
    assert all(field.dtype == torch.float32 for field in result)
    torch.testing.assert_close(result.log_abs_det_dzdx.double(), exact.log_abs_det_dzdx, rtol=0, atol=1e-3)
    result.log_abs_det_dzdx.sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in flow.parameters())


def test_only_parameters_and_the_reference_are_saved():
    flow = make_flow(CELL)
    assert set(flow.state_dict()) == {name for name, _ in flow.named_parameters()} | {"reference"}


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ({"num_blocks": 0}, "num_blocks = 0"),
        ({"edge_lmax": 0}, "edge_lmax = 0"),
        ({"cutoff": -1.0}, "cutoff = -1.0"),
        ({"max_chunk_elements": 0}, "max_chunk_elements = 0"),
    ],
)
def test_bad_sizes(setting, key):
    with pytest.raises(ValueError, match=key) as error:
        EquivariantFlow(SYSTEM, REFERENCE, **setting)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(5, 3), (2, 4, 2), (12,)])
def test_bad_positions(shape):
    with pytest.raises(ValueError, match="needs"):
        EquivariantFlow(SYSTEM, REFERENCE).to_base(torch.zeros(shape), states())
