"""What the flow does under translations, permutations and the operations of the cube: largest errors, 1e-10."""

import pytest
import torch

from lightning_vfe.physics.cell import PeriodicCell
from tests.helpers.flows import cubic_operations, make_flow, random_protons, report
from tests.helpers.states import states_at

TOLERANCE = 1e-10


@pytest.fixture(params=[(2, 1), (5, 1), (4, 2)], ids=lambda p: f"N{p[0]}-l{p[1]}")
def case(request):
    num_atoms, hidden_lmax = request.param
    cell = PeriodicCell(num_atoms, 1.4)
    flow = make_flow(cell, seed=2, hidden_lmax=hidden_lmax, edge_lmax=hidden_lmax + 1)
    return cell, flow, random_protons(cell, 2)


def _largest_error(cell, flow, x, changed, change):
    """change(z(x)) against z(changed), and their log-determinants."""
    with torch.no_grad():
        before, after = (flow.to_base(positions, states_at(cell)) for positions in (x, changed))
    shift = (before.z - x).abs().max()
    assert shift > 0.01, "the map must move the protons, or the test shows nothing"
    assert torch.equal(before.sign_det_dzdx.expand_as(after.sign_det_dzdx), after.sign_det_dzdx)
    positions = (change(before.z) - after.z).abs().max()
    return torch.maximum(positions, (before.log_abs_det_dzdx - after.log_abs_det_dzdx).abs().max())


def test_all_48_cubic_operations(case, record_property):
    cell, flow, x = case
    operations = cubic_operations().unsqueeze(1)  # (48, 1, 3, 3)
    assert len(operations) == 48
    error = _largest_error(cell, flow, x, x @ operations.mT, lambda z: z @ operations.mT)
    report(record_property, error, TOLERANCE)


def test_permutations(case, record_property):
    cell, flow, x = case
    order = torch.randperm(cell.num_atoms).roll(1)
    report(record_property, _largest_error(cell, flow, x, x[:, order], lambda z: z[:, order]), TOLERANCE)


def test_joint_translations(case, record_property):
    cell, flow, x = case
    vector = torch.tensor([0.31, -7.2, 1.9])
    report(record_property, _largest_error(cell, flow, x, x + vector, lambda z: z + vector), TOLERANCE)


def test_lattice_translations_of_single_protons(case, record_property):
    """z of that proton moves by the same lattice vector, and ln p stays."""
    cell, flow, x = case
    shift = torch.zeros_like(x)
    shift[:, 0] = cell.length * torch.tensor([1.0, 0.0, -2.0])
    shift[1, -1] = cell.length * torch.tensor([0.0, 3.0, 1.0])
    report(record_property, _largest_error(cell, flow, x, x + shift, lambda z: z + shift), TOLERANCE)


def test_distances_do_not_depend_on_how_the_cell_is_cut(record_property):
    """Protons at the faces of the cell and of the cube of minimum images: rounding to either side changes nothing."""
    cell = PeriodicCell(2, 1.4)
    flow = make_flow(cell, seed=2)
    x = torch.stack([torch.zeros(3), torch.tensor([0.5, 0.15, 0.3]) * cell.length])
    shift = torch.tensor([[0.0], [cell.length]])
    moved = x + torch.tensor([[0.0], [1e-15]]) * cell.length - shift
    report(record_property, _largest_error(cell, flow, x, moved, lambda z: z - shift), 1e-10)
