"""Updates against dense matrices built from the derivatives of every single sample."""

import math

import pytest
import torch

from lightning_vfe.models.base.uniform import UniformBase
from lightning_vfe.models.flow.equivariant_flow import EquivariantFlow
from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.models.wavefunction import scores as module_of_scores
from lightning_vfe.models.wavefunction.scores import wavefunction_scores
from lightning_vfe.models.wavefunction.wavefunction import GeminalWavefunction
from lightning_vfe.optim.collectives import Collectives
from lightning_vfe.optim.natural_gradient import NaturalGradientOptimizer
from lightning_vfe.optim.solve import ScoreBlock, SolveSettings, fisher_and_force, minsr_direction, sr_direction
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.chunking import set_max_chunk_elements
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.system import System
from tests.helpers.states import states_at
from tests.helpers.wavefunctions import GENERAL_TWIST, make_wavefunction, random_configurations, trained_like

ALONE = Collectives()


def random_block(num_parameters, num_groups=6, size=4, components=2, seed=0):
    """A block of correlated scores with large means, and residuals whose mean over every group is zero."""
    generator = torch.Generator().manual_seed(seed)
    shape = (num_groups, size, components)
    scores = torch.randn(*shape, num_parameters, generator=generator) * torch.logspace(-1, 1, num_parameters)
    scores += 3.0 * torch.randn(num_groups, 1, components, num_parameters, generator=generator)
    residuals = torch.randn(*shape, generator=generator)
    residuals -= residuals.mean(1, keepdim=True)
    groups = torch.arange(num_groups).repeat_interleave(size)
    return ScoreBlock(scores.flatten(0, 1), residuals.flatten(0, 1), groups)


def dense(scores, residuals, size, weights=None):
    """S and f from complex scores (G, n, P), residuals (G, n) and weights of the groups (G,), sample by sample."""
    num_groups = len(scores)
    weights = torch.ones(num_groups) if weights is None else weights
    fisher = torch.zeros(scores.shape[-1], scores.shape[-1])
    force = torch.zeros(scores.shape[-1])
    for g in range(num_groups):
        mean = scores[g].mean(0)
        for m in range(size):
            centred = scores[g, m] - mean
            fisher += weights[g] * (centred.conj()[:, None] * centred[None, :]).real
            force += weights[g] * (centred.conj() * residuals[g, m]).real
    norm = num_groups * (size - 1)  # c / M with c = n / (n - 1)
    return fisher / norm, force / norm


def wavefunction_case():
    """Scores of a trained-like wavefunction by one backward pass per sample and part, and random residuals."""
    cell = PeriodicCell(4, 1.5)
    wavefunction = make_wavefunction(cell, num_determinants=2, single_width=4, pair_width=4)
    walkers, size = 3, 4
    protons, electrons = random_configurations(cell, walkers, size)
    states = states_at(cell, walkers, twist=GENERAL_TWIST)
    rows = []
    for w in range(walkers):
        for b in range(size):
            log_psi = wavefunction(protons[w, 0], electrons[w, b], states[w])
            parts = []
            for part in (log_psi.real, log_psi.imag):
                gradient = torch.autograd.grad(part, list(wavefunction.parameters()), retain_graph=True)
                parts.append(torch.cat([g.flatten() for g in gradient]))
            rows.append(torch.complex(*parts))
    scores = torch.stack(rows).unflatten(0, (walkers, size))
    generator = torch.Generator().manual_seed(5)
    residuals = torch.randn(walkers, size, dtype=torch.complex128, generator=generator)
    residuals = residuals - residuals.mean(1, keepdim=True)
    return wavefunction, protons[:, 0], electrons, states, scores, residuals


def test_wavefunction_scores_are_the_derivatives_of_every_sample() -> None:
    wavefunction, protons, electrons, states, reference, _ = wavefunction_case()
    for chunk_size in (None, 5, 2):
        with torch.no_grad():  # as in a step of the optimizer
            found = wavefunction_scores(wavefunction, protons, electrons, states, chunk_size)
        found = torch.complex(found[:, :, 0], found[:, :, 1])
        error = (found - reference).abs().max() / reference.abs().max()
        assert error < 1e-12, f"chunk {chunk_size}: relative error {error:.1e}"


def test_scores_go_on_in_smaller_chunks_where_the_memory_does_not_suffice(monkeypatch) -> None:
    wavefunction, protons, electrons, states, reference, _ = wavefunction_case()
    whole, sizes = module_of_scores._gradients, []

    def limited(wavefunction, parameters, walkers):
        sizes.append(walkers.electrons.shape[:2].numel())
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("out of memory")
        return whole(wavefunction, parameters, walkers)

    monkeypatch.setattr(module_of_scores, "_gradients", limited)
    try:
        with pytest.warns(RuntimeWarning, match="out of memory with 12 configurations"):
            found = wavefunction_scores(wavefunction, protons, electrons, states)
    finally:
        set_max_chunk_elements(None)
    assert sizes[0] == electrons.shape[:2].numel() == 12
    assert sum(size for size in sizes if size <= 3) == 12
    error = (torch.complex(found[:, :, 0], found[:, :, 1]) - reference).abs().max() / reference.abs().max()
    assert error < 1e-12


def test_scores_take_as_many_samples_as_the_bound_allows(monkeypatch) -> None:
    wavefunction, protons, electrons, states, _, _ = wavefunction_case()
    whole, sizes = module_of_scores._gradients, []

    def noted(wavefunction, parameters, walkers):
        sizes.append(walkers.electrons.shape[:2].numel())
        return whole(wavefunction, parameters, walkers)

    monkeypatch.setattr(module_of_scores, "_gradients", noted)
    for elements, expected in ((1, [1] * 12), (2**40, [12])):
        sizes.clear()
        set_max_chunk_elements(elements)
        wavefunction_scores(wavefunction, protons, electrons, states)
        set_max_chunk_elements(None)
        assert sizes == expected


def test_scores_of_a_class_that_extends_the_wavefunction() -> None:
    """It may compute ln psi in its own way, from protons, electrons and states alone."""

    class Doubled(GeminalWavefunction):
        def forward(self, protons, electrons, states):
            return 2.0 * self.log_psi(protons, electrons, states)

    wavefunction, protons, electrons, states, reference, _ = wavefunction_case()
    wavefunction.__class__ = Doubled
    found = wavefunction_scores(wavefunction, protons, electrons, states)
    error = (torch.complex(found[:, :, 0], found[:, :, 1]) - 2.0 * reference).abs().max() / reference.abs().max()
    assert error < 1e-12


def test_frozen_parameters_have_no_scores() -> None:
    wavefunction, protons, electrons, states, reference, _ = wavefunction_case()
    wavefunction.jastrow.raw_ranges.requires_grad_(False)
    kept, position = [], 0
    for parameter in wavefunction.parameters():
        kept += list(range(position, position + parameter.numel())) if parameter.requires_grad else []
        position += parameter.numel()
    found = wavefunction_scores(wavefunction, protons, electrons, states)
    assert found.shape[-1] == reference.shape[-1] - 3
    assert (found[:, :, 0] - reference.real[..., kept]).abs().max() < 1e-10


@pytest.mark.parametrize("space", ["sample", "parameter"])
def test_update_of_a_wavefunction_is_that_of_the_dense_matrices(space: str) -> None:
    wavefunction, protons, electrons, states, reference, residuals = wavefunction_case()
    damping, momentum = 1e-3, 0.9
    size = residuals.shape[1]
    fisher, force = dense(reference, residuals, size)
    last = 0.1 * torch.randn(len(force), generator=torch.Generator().manual_seed(2))
    shifted = fisher + damping * torch.eye(len(force))
    expected = momentum * last + torch.linalg.solve(shifted, force - momentum * fisher @ last)

    scores = wavefunction_scores(wavefunction, protons, electrons, states)
    groups = torch.arange(len(protons)).repeat_interleave(size)
    block = ScoreBlock(scores.flatten(0, 1), torch.view_as_real(residuals).flatten(0, 1), groups)
    settings = SolveSettings(damping, momentum)
    if space == "sample":
        found = minsr_direction(block, last, settings, ALONE)
    else:
        found = sr_direction(*fisher_and_force(block, ALONE), last, settings)
    assert bool(found.solved)
    error = (found.direction - expected).abs().max() / expected.abs().max()
    assert error < 1e-8, f"relative error {error:.1e}"
    squared = expected @ shifted @ expected
    assert abs(found.squared_norm - squared) < 1e-8 * squared


@pytest.mark.parametrize("space", ["sample", "parameter"])
def test_update_of_a_flow_is_that_of_the_dense_matrices(space: str) -> None:
    cell = PeriodicCell(4, 1.5)
    system, walkers, damping = System(4), 7, 1e-3
    flow = EquivariantFlow(system, StatePoint(1.4, 5000.0), num_layers=1, num_channels=2, num_radial=3)
    density = ProtonDensity(UniformBase(system), trained_like(flow, seed=3, size=0.05))
    generator = torch.Generator().manual_seed(1)
    protons = torch.rand(walkers, 4, 3, generator=generator) * cell.length
    residuals = torch.randn(walkers, generator=generator)
    residuals -= residuals.mean()
    rows = []
    for x in protons:
        gradient = torch.autograd.grad(density.log_prob(x, states_at(cell)), list(density.parameters()))
        rows.append(torch.cat([g.flatten() for g in gradient]))
    fisher, force = dense(torch.stack(rows).unsqueeze(0), residuals.unsqueeze(0), walkers)
    expected = torch.linalg.solve(fisher + damping * torch.eye(len(force)), force)

    _, scores = density.scores(protons, states_at(cell, walkers))
    block = ScoreBlock(scores.unsqueeze(1), residuals.unsqueeze(1), torch.zeros(walkers, dtype=torch.int64))
    optimizer = NaturalGradientOptimizer(
        {"flow": density.parameters()}, {"flow": 1e-3}, {"flow": damping}, {"flow": 1e9}, space=space
    )
    before = torch.cat([p.detach().flatten() for p in density.parameters()]).clone()
    optimizer.step(lambda: {"flow": block})
    after = torch.cat([p.detach().flatten() for p in density.parameters()])
    found = (before - after) / 1e-3
    error = (found - expected).abs().max() / expected.abs().max()
    assert error < 1e-8, f"relative error {error:.1e}"


@pytest.mark.parametrize("momentum", [0.0, 0.95])
@pytest.mark.parametrize("num_parameters", [10, 200])
def test_both_spaces_give_one_update(num_parameters: int, momentum: float) -> None:
    """MinSR is SR with the same damping, with more samples than parameters and with fewer."""
    block, settings = random_block(num_parameters), SolveSettings(1e-3, momentum)
    last = torch.randn(num_parameters, generator=torch.Generator().manual_seed(3))
    sample = minsr_direction(block, last, settings, ALONE)
    parameter = sr_direction(*fisher_and_force(block, ALONE), last, settings)
    error = (sample.direction - parameter.direction).abs().max() / parameter.direction.abs().max()
    assert error < 1e-8, f"relative error {error:.1e}"
    assert abs(sample.squared_norm / parameter.squared_norm - 1.0) < 1e-8


WEIGHTS = torch.tensor([0.5, 2.0, 0.1, 1.4, 1.0, 1.0])
"""Of the groups of random_block, one on average."""


@pytest.mark.parametrize("num_parameters", [10, 200])
def test_weights_of_the_groups_are_those_of_the_dense_matrices(num_parameters: int) -> None:
    """The twists' weights enter matrix and force, in both spaces."""
    size, settings = 4, SolveSettings(1e-2, 0.9)
    block = random_block(num_parameters)._replace(weights=WEIGHTS.repeat_interleave(size))
    scores = torch.complex(block.scores[:, 0], block.scores[:, 1]).unflatten(0, (-1, size))
    residuals = torch.complex(block.residuals[:, 0], block.residuals[:, 1]).unflatten(0, (-1, size))
    fisher, force = dense(scores, residuals, size, WEIGHTS)
    last = torch.randn(num_parameters, generator=torch.Generator().manual_seed(3))
    shifted = fisher + 1e-2 * torch.eye(num_parameters)
    expected = 0.9 * last + torch.linalg.solve(shifted, force - 0.9 * fisher @ last)
    found = fisher_and_force(block, ALONE)
    for one, other in zip(found, (fisher, force), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11 * float(other.abs().max()))
    for direction in (minsr_direction(block, last, settings, ALONE), sr_direction(*found, last, settings)):
        error = (direction.direction - expected).abs().max() / expected.abs().max()
        assert error < 1e-8, f"relative error {error:.1e}"


def test_equal_weights_are_no_weights() -> None:
    block, last, settings = random_block(20), torch.ones(20), SolveSettings(1e-3, 0.5)
    weighted = block._replace(weights=torch.ones(len(block.scores)))
    plain, same = (minsr_direction(each, last, settings, ALONE).direction for each in (block, weighted))
    torch.testing.assert_close(same, plain, rtol=1e-12, atol=0)


def test_momentum_is_that_of_the_kaczmarz_projection() -> None:
    """SPRING's formula, written down with the matrix of all samples; mu = 0 is MinSR, whatever was before."""
    block = random_block(50)
    size, damping = 4, 1e-2
    scores = torch.complex(block.scores[:, 0], block.scores[:, 1]).unflatten(0, (-1, size))
    residuals = torch.complex(block.residuals[:, 0], block.residuals[:, 1]).unflatten(0, (-1, size))
    centred = (scores - scores.mean(1, keepdim=True)).flatten(0, 1) / math.sqrt(6 * (size - 1))
    a = torch.cat([centred.real, centred.imag])
    e = torch.cat([residuals.real.flatten(), residuals.imag.flatten()]) / math.sqrt(6 * (size - 1))
    last = torch.randn(50, generator=torch.Generator().manual_seed(3))
    kernel = a @ a.T + damping * torch.eye(len(a))
    for momentum in (0.0, 0.99):
        expected = momentum * last + a.T @ torch.linalg.solve(kernel, e - momentum * a @ last)
        found = minsr_direction(block, last, SolveSettings(damping, momentum), ALONE).direction
        assert (found - expected).abs().max() < 1e-9
    plain = minsr_direction(block, torch.zeros(50), SolveSettings(damping, 0.0), ALONE).direction
    assert torch.equal(minsr_direction(block, last, SolveSettings(damping, 0.0), ALONE).direction, plain)


def test_null_vectors_keep_an_undamped_system_solvable() -> None:
    """Centred scores have one null vector for every group and part: without it the matrix would be singular."""
    block = random_block(100)
    found = minsr_direction(block, torch.zeros(100), SolveSettings(0.0, 0.0), ALONE)
    assert bool(found.solved)
    least_squares = minsr_direction(block, torch.zeros(100), SolveSettings(1e-9, 0.0), ALONE)
    assert (found.direction - least_squares.direction).abs().max() < 1e-5


def one_parameter(**settings):
    parameter = torch.nn.Parameter(torch.zeros(10))
    arguments = {"lr": {"psi": 1.0}, "damping": {"psi": 1e-3}, "max_norm": {"psi": 1e-2}} | settings
    return parameter, NaturalGradientOptimizer({"psi": [parameter]}, **arguments)


def test_steps_are_limited_by_learning_rate_and_norm() -> None:
    block = random_block(10)
    fisher, force = fisher_and_force(block, ALONE)
    shifted = fisher + 1e-3 * torch.eye(10)
    direction = torch.linalg.solve(shifted, force)
    for rate, max_norm in ((1e-4, 1e9), (1.0, 1e-4)):
        parameter, optimizer = one_parameter(lr={"psi": rate}, max_norm={"psi": max_norm})
        optimizer.step(lambda: {"psi": block})
        step = min(rate, math.sqrt(max_norm / float(force @ direction)))
        assert torch.allclose(parameter.detach(), -step * direction, rtol=1e-8, atol=0.0)
        assert abs(float(optimizer.report["psi_step"]) - step) < 1e-8 * step
    assert abs(float(optimizer.report["psi_update"]) - 1e-2) < 1e-10


def test_a_schedule_lowers_the_largest_step_too() -> None:
    block = random_block(10)
    lengths = []
    for factor in (1.0, 0.25):
        _, optimizer = one_parameter(max_norm={"psi": 1e-4})
        optimizer.param_groups[0]["lr"] *= factor
        optimizer.step(lambda: {"psi": block})
        lengths.append(float(optimizer.report["psi_update"]))
    assert abs(lengths[1] / lengths[0] - 0.25) < 1e-10


@pytest.mark.parametrize("space", ["sample", "parameter"])
@pytest.mark.parametrize("field", ["scores", "residuals"])
def test_updates_that_are_not_finite_are_counted_and_not_applied(space: str, field: str) -> None:
    parameter, optimizer = one_parameter(space=space, momentum=0.9)
    good = random_block(10)
    optimizer.step(lambda: {"psi": good})
    before, direction = parameter.detach().clone(), optimizer.state[parameter]["direction"].clone()
    broken = getattr(good, field).clone()
    broken.view(-1)[3] = torch.inf
    optimizer.step(lambda: {"psi": good._replace(**{field: broken})})
    assert optimizer.num_skipped == 1
    assert torch.equal(parameter.detach(), before)
    assert torch.equal(optimizer.state[parameter]["direction"], direction)
    assert math.isnan(float(optimizer.report["psi_step"]))


def test_a_matrix_that_is_not_positive_is_not_applied() -> None:
    """More parameters than samples and hardly any damping: S is singular, and rounding makes it indefinite."""
    parameter = torch.nn.Parameter(torch.zeros(200))
    optimizer = NaturalGradientOptimizer(
        {"psi": [parameter]}, {"psi": 1.0}, {"psi": 1e-300}, {"psi": 1.0}, space="parameter"
    )
    optimizer.step(lambda: {"psi": random_block(200)})
    assert optimizer.num_skipped == 1
    assert not parameter.detach().any()


def test_the_fisher_matrix_is_averaged_in_parameter_space() -> None:
    first, second = random_block(10, seed=1), random_block(10, seed=2)
    parameter, optimizer = one_parameter(space="parameter", fisher_decay=0.8, lr={"psi": 1e-3}, max_norm={"psi": 1e9})
    optimizer.step(lambda: {"psi": first})
    before = parameter.detach().clone()
    optimizer.step(lambda: {"psi": second})
    (fisher1, _), (fisher2, force) = fisher_and_force(first, ALONE), fisher_and_force(second, ALONE)
    expected = torch.linalg.solve(0.8 * fisher1 + 0.2 * fisher2 + 1e-3 * torch.eye(10), force)
    found = (before - parameter.detach()) / 1e-3
    assert (found - expected).abs().max() < 1e-8 * expected.abs().max()


@pytest.mark.parametrize("settings", [{"momentum": 0.9}, {"space": "parameter", "fisher_decay": 0.5, "momentum": 0.9}])
def test_a_resumed_optimizer_goes_on_bit_for_bit(settings: dict, tmp_path) -> None:
    blocks = [random_block(10, seed=seed) for seed in range(4)]
    straight, optimizer = one_parameter(**settings)
    for i, block in enumerate(blocks):
        if i == 2:
            torch.save({"optimizer": optimizer.state_dict(), "parameter": straight.detach()}, tmp_path / "half.pt")
        optimizer.step(lambda block=block: {"psi": block})
    resumed, optimizer = one_parameter(**settings)
    saved = torch.load(tmp_path / "half.pt", weights_only=True)
    optimizer.load_state_dict(saved["optimizer"])
    resumed.data.copy_(saved["parameter"])
    for block in blocks[2:]:
        optimizer.step(lambda block=block: {"psi": block})
    assert torch.equal(straight, resumed)


def test_a_resumed_optimizer_takes_its_own_settings() -> None:
    """A run that is resumed with a smaller step makes smaller steps; its schedule goes on."""
    _, optimizer = one_parameter()
    optimizer.step(lambda: {"psi": random_block(10)})
    optimizer.param_groups[0]["lr"] *= 0.5
    _, resumed = one_parameter(damping={"psi": 0.5}, max_norm={"psi": 1e-8}, momentum=0.3, space="parameter")
    resumed.load_state_dict(optimizer.state_dict())
    group = resumed.param_groups[0]
    assert (group["damping"], group["momentum"], group["space"]) == (0.5, 0.3, "parameter")
    resumed.step(lambda: {"psi": random_block(10)})
    assert abs(float(resumed.report["psi_update"]) - 0.5e-4) < 1e-12


def test_the_state_of_another_optimizer_is_refused() -> None:
    parameter, optimizer = one_parameter()
    with pytest.raises(ValueError, match="natural_gradient of psi did not make this checkpoint"):
        optimizer.load_state_dict(torch.optim.Adam([parameter]).state_dict())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": {"psi": 0.0}}, "psi_learning_rate = 0.0 must be positive and finite"),
        ({"lr": {"psi": math.inf}}, "psi_learning_rate = inf must be positive and finite"),
        ({"damping": {"psi": -1.0}}, "psi_damping = -1.0 must be positive"),
        ({"max_norm": {"psi": 0.0}}, "psi_max_norm = 0.0 must be positive"),
        ({"momentum": 1.0}, "momentum = 1.0 must be at least 0 and below 1"),
        ({"space": "both"}, "space = both is unknown"),
        ({"fisher_decay": 0.9}, "set optimizer.space=parameter"),
    ],
)
def test_bad_settings_name_the_fix(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        one_parameter(**settings)
