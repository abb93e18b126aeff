"""d ln p(x_w) / d phi of every walker, by one backward pass with parameters of its own for each."""

from __future__ import annotations

import pytest
import torch

from lightning_vfe.models.base.boltzmann import BoltzmannBase
from lightning_vfe.models.base.uniform import UniformBase
from lightning_vfe.models.potential.yukawa import YukawaPotential
from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.chunking import set_max_chunk_elements
from lightning_vfe.physics.system import System
from tests.helpers.flows import make_flow, random_protons, report
from tests.helpers.potentials import make_schnet
from tests.helpers.states import states_at

CELL, KELVIN, WALKERS = PeriodicCell(4, 1.25), 6000.0, 5
BASES = {
    "uniform": lambda: UniformBase(System(4)),
    "yukawa": lambda: BoltzmannBase(CELL, YukawaPotential(), KELVIN, -20.0, 0.1),
    "schnet": lambda: BoltzmannBase(CELL, make_schnet(), KELVIN, -20.0, 0.1),
}
SIZES = [{}, {"num_blocks": 2, "num_steps": 1, "num_layers": 3, "num_channels": 2, "hidden_lmax": 2}]


def one_by_one(density: ProtonDensity, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same by a loop over walkers. # (W,), (W, P)"""
    parameters = [parameter for parameter in density.parameters() if parameter.requires_grad]
    values, rows = [], []
    for walker in x:
        values.append(density.log_prob(walker, states_at(CELL)))
        rows.append(torch.cat([part.flatten() for part in torch.autograd.grad(values[-1], parameters)]))
    return torch.stack(values).detach(), torch.stack(rows)


@pytest.mark.parametrize("sizes", SIZES, ids=["default-kind", "deep"])
@pytest.mark.parametrize("base", BASES)
def test_against_a_loop_over_walkers(base, sizes, record_property):
    density, x = ProtonDensity(BASES[base](), make_flow(CELL, **sizes)), random_protons(CELL, WALKERS)
    values, rows = one_by_one(density, x)
    spread = (rows - rows.mean(0)).abs().amax(0)
    # Most parameters matter, and differently for each walker; nothing reads what the last layer gives for l = 0 and 2.
    assert (spread > 0).double().mean() > 0.6
    assert spread.max() > 1.0
    largest = rows.abs().amax(0).clamp(min=1e-3)
    for chunk_size in (None, 1, 2, WALKERS, 100):
        log_prob, scores = density.scores(x, states_at(CELL, WALKERS), chunk_size)
        assert not log_prob.requires_grad
        assert not scores.requires_grad
        torch.testing.assert_close(log_prob, values, rtol=1e-13, atol=1e-12)
        report(record_property, ((scores - rows).abs() / largest).max(), 1e-12)


def test_memory_bound_of_the_flow_is_kept():
    """max_chunk_elements decides how many walkers go at once, whatever is asked for."""
    density = ProtonDensity(BASES["uniform"](), make_flow(CELL))
    turns = ProtonDensity(density.base, make_flow(CELL, max_chunk_elements=1))
    x, states = random_protons(CELL, 3), states_at(CELL, 3)
    for one, other in zip(density.scores(x, states), turns.scores(x, states, 3), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_scores_and_maps_go_on_in_smaller_chunks_where_the_memory_does_not_suffice(monkeypatch):
    density, x, states = ProtonDensity(BASES["uniform"](), make_flow(CELL)), random_protons(CELL, 8), states_at(CELL, 8)

    def everything():
        inverse = density.flow.from_base(x, states)
        return *density.scores(x, states), density.flow.displacement(x, states), *inverse

    with torch.no_grad():
        whole, flow, sizes = everything(), density.flow, []
        own_blocks = flow._blocks

        def limited(condition):
            sizes.append(len(condition))
            if len(condition) > 3:
                raise torch.OutOfMemoryError("out of memory")
            return own_blocks(condition)

        monkeypatch.setattr(flow, "_blocks", limited)
        try:
            with pytest.warns(RuntimeWarning, match="out of memory with 8 configurations"):
                parts = everything()
        finally:
            set_max_chunk_elements(None)
    assert sizes[0] == 8
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-9)


def test_frozen_parameters_are_left_out_and_nothing_is_changed():
    density, x, states = ProtonDensity(BASES["uniform"](), make_flow(CELL)), random_protons(CELL, 2), states_at(CELL, 2)
    _, before = density.scores(x, states)
    frozen = sum(parameter.numel() for parameter in density.flow.contact.parameters())
    density.flow.contact.requires_grad_(False)
    with torch.no_grad():
        _, scores = density.scores(x.requires_grad_(), states)
    torch.testing.assert_close(scores, before[:, frozen:], rtol=1e-12, atol=1e-12)
    assert x.grad is None
    assert all(parameter.grad is None for parameter in density.parameters())


def test_bad_chunk_size():
    density = ProtonDensity(BASES["uniform"](), make_flow(CELL))
    with pytest.raises(ValueError, match="chunk_size = 0 must be at least 1"):
        density.scores(random_protons(CELL, 2), states_at(CELL, 2), 0)
