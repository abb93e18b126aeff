"""The inverse of the flow: round trips, symmetry, what happens where mixing does not arrive or no inverse exists."""

from __future__ import annotations

import pytest
import torch

from lightning_vfe.models.flow import anderson, inverse
from lightning_vfe.models.flow.condition import NUM_CONDITIONS, conditions
from lightning_vfe.models.flow.inverse import invert
from lightning_vfe.models.flow.newton import Solver
from lightning_vfe.models.flow.step import StepResult
from lightning_vfe.physics.cell import PeriodicCell
from tests.helpers.flows import make_flow, random_protons, report
from tests.helpers.states import states_at


@pytest.mark.parametrize(("num_atoms", "strength"), [(2, 1.5), (4, 1.0), (8, 0.5)])
def test_base_coordinates_of_the_inverse_are_the_given_ones(num_atoms, strength, record_property):
    """Every walker, also where z lies in the core that the contact block empties; x is what z was made from."""
    cell = PeriodicCell(num_atoms, 1.25)
    flow, states = make_flow(cell, strength=strength), states_at(cell, 6, 5)
    with torch.no_grad():
        for z in (random_protons(cell, 6, 5), flow.to_base(random_protons(cell, 6, 5, seed=3), states).z):
            found = flow.from_base(z, states, tolerance=1e-9 / cell.rs)  # in units of rs
            assert found.x.shape == z.shape
            assert found.converged.shape == found.residual.shape == (6, 5)
            assert found.converged.all()
            distance = (flow.to_base(found.x, states).z - z).flatten(-2).norm(dim=-1)
            torch.testing.assert_close(distance, found.residual, atol=1e-12, rtol=0)
            report(record_property, distance.max(), 1e-9)
        again = found.x - random_protons(cell, 6, 5, seed=3)
    report(record_property, again.abs().max(), 1e-8)


def test_inverse_has_the_symmetry_of_the_lattice_and_of_the_atoms(record_property):
    cell = PeriodicCell(4, 1.25)
    flow, z = make_flow(cell), random_protons(cell, 8)
    shift = cell.length * torch.randint(-2, 3, z.shape).to(z)
    order = torch.tensor([2, 0, 3, 1])
    states = states_at(cell, 8)
    plain, moved = flow.from_base(z, states).x, flow.from_base((z + shift)[:, order], states).x
    report(record_property, (moved - (plain + shift)[:, order]).abs().max(), 1e-9)


def test_walkers_do_not_depend_on_each_other(record_property):
    cell = PeriodicCell(4, 1.25)
    flow, z = make_flow(cell), random_protons(cell, 6)
    states = states_at(cell, 6)
    together = flow.from_base(z, states).x
    apart = torch.cat([flow.from_base(walker, states[:1]).x for walker in z.split(1)])
    report(record_property, (together - apart).abs().max(), 1e-12)
    flow.max_chunk_elements = 4 * flow.memory.plain
    assert flow.batch_size(z) * flow.memory.with_jacobian // flow.memory.plain < 6
    report(record_property, (together - flow.from_base(z, states).x).abs().max(), 1e-12)


def test_walkers_do_not_depend_on_those_that_fail(record_property):
    """Neither on their number, of which a batch may have any, nor on which process has them."""
    cell = PeriodicCell(8, 1.25)
    flow, z = make_flow(cell, strength=4.0), random_protons(cell, 24)
    states = states_at(cell, 24)
    together = flow.from_base(z, states)
    assert 2 < int(together.converged.sum()) < 22
    for size in (1, 5, 12):
        parts = [flow.from_base(*part) for part in zip(z.split(size), states.split(size), strict=True)]
        x, converged = (torch.cat([getattr(part, name) for part in parts]) for name in ("x", "converged"))
        assert torch.equal(converged, together.converged)
        report(record_property, (x - together.x)[converged].abs().max(), 1e-11)


def test_precision_of_float32_is_allowed_for():
    torch.set_default_dtype(torch.float32)
    cell = PeriodicCell(4, 1.25)
    flow, z = make_flow(cell), random_protons(cell, 8)
    found = flow.from_base(z, states_at(cell, 8))
    assert found.converged.all()
    assert found.x.dtype == torch.float32
    assert found.residual.max() < 1e-3


def test_wrong_number_of_protons_is_refused():
    cell = PeriodicCell(4, 1.25)
    flow = make_flow(cell)
    with pytest.raises(ValueError, match=r"shape \(3, 5, 3\); the flow needs \(..., 4, 3\)"):
        flow.from_base(torch.zeros(3, 5, 3), states_at(cell, 3))


def test_newton_takes_over_where_mixing_does_not_arrive(monkeypatch):
    """The steps of a real flow, with the mixing stopped after two iterations."""
    cell = PeriodicCell(4, 1.25)
    flow, z = make_flow(cell), random_protons(cell, 8)
    states = states_at(cell, 8)
    mixed = flow.from_base(z, states).x
    monkeypatch.setattr(anderson, "MAX_MIXING", 2)
    found = flow.from_base(z, states)
    assert found.converged.all()
    torch.testing.assert_close(found.x, mixed, atol=1e-9, rtol=0)


def test_a_known_image_saves_the_first_evaluation():
    """Undoing a network that was applied twice: what the second application did is known for the first one's start."""
    cell = PeriodicCell(8, 1.25)
    flow, z = make_flow(cell), random_protons(cell, 1) / cell.rs
    network, condition = flow.networks[0], conditions(states_at(cell, 1), flow.reference, flow.combinations)
    calls = []

    def step(x, with_jacobian):
        calls.append(len(x))
        return network(x, condition, with_jacobian)

    def calls_of(steps, target):
        calls.clear()
        found = invert(lambda _: steps, target, condition, Solver(1e-10))
        assert found.converged.all()
        return found.x, len(calls) - len(steps)  # without those that verify

    with torch.no_grad():
        middle, first = calls_of([step], z)
        plain, second = calls_of([step], middle)
        together, both = calls_of([step, step], z)
    torch.testing.assert_close(together, plain, atol=1e-9, rtol=0)
    assert both == first + second - 1


def bounded(x: torch.Tensor, with_jacobian: bool) -> StepResult:
    """x + Delta(x) = tanh(3 x): the step maps all space into (-1, 1)."""
    value = torch.tanh(3.0 * x)
    slope = 3.0 * (1.0 - value.square()) - 1.0
    jacobian = torch.diag_embed(slope.flatten(1)).unflatten(1, x.shape[1:]) if with_jacobian else None
    return StepResult(value, jacobian)


def test_walkers_without_an_inverse_are_told_apart():
    """Only those outside of (-1, 1) are reported; the steep ones near its edge need the line search."""
    target = torch.tensor([0.0, 0.3, -0.9, 0.999, 1.01, 3.0, torch.nan])[:, None, None].expand(7, 1, 3)
    x, converged, _ = invert(lambda _: [bounded], target, torch.zeros(7, NUM_CONDITIONS), Solver(1e-10))
    assert converged.tolist() == [True] * 4 + [False] * 3
    torch.testing.assert_close(x[:4], torch.atanh(target[:4]) / 3.0, atol=1e-7, rtol=0)


def test_a_failed_walker_is_reported_by_the_flow():
    cell = PeriodicCell(2, 1.25)
    flow, z = make_flow(cell), random_protons(cell, 3)
    z[1] = torch.nan
    found = flow.from_base(z, states_at(cell, 3))
    assert found.converged.tolist() == [True, False, True]
    assert torch.isnan(found.residual[1])
    assert found.residual[[0, 2]].max() < 1e-9


def test_a_batch_in_which_every_walker_fails_is_reported_too():
    cell = PeriodicCell(2, 1.25)
    found = make_flow(cell).from_base(torch.full((3, 2, 3), torch.nan), states_at(cell, 3))
    assert not found.converged.any()
    assert torch.isnan(found.residual).all()


def test_a_walker_that_just_misses_the_tolerance_is_solved_once_more(monkeypatch):
    """Later steps may stretch what a step leaves over: here every step leaves far more than it may."""
    careful = inverse.undo_step

    def careless(*args):
        return careful(*args) + 1e-7

    monkeypatch.setattr(inverse, "undo_step", careless)
    cell = PeriodicCell(8, 1.25)
    flow, x = make_flow(cell), random_protons(cell, 3)
    states = states_at(cell, 3)
    found = flow.from_base(flow.to_base(x, states).z, states)
    assert bool(found.converged.all())
    torch.testing.assert_close(found.x, x, atol=1e-8, rtol=0)
