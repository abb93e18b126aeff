"""Several state points and twists in one batch: gradients and values are the means of those of separate runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_vfe.optim.collectives import Collectives
from lightning_vfe.optim.solve import ScoreBlock, fisher_and_force
from lightning_vfe.physics.strata import Strata
from lightning_vfe.physics.twists import TwistGrid, twist_grid
from lightning_vfe.state.batch import Batch
from lightning_vfe.state.variational_state import VariationalState
from lightning_vfe.training.variational import module as module_file
from lightning_vfe.training.variational import step_values as step_values_file
from lightning_vfe.training.variational.comparison import flow_groups, same_protons, strata_groups
from lightning_vfe.training.variational.measurement import Measurement
from lightning_vfe.training.variational.module import VariationalFreeEnergy
from lightning_vfe.training.variational.step_values import step_values
from tests.helpers.processes import ThreadCollectives, run_processes
from tests.helpers.variational import build_run

DENSITIES, TEMPERATURES = [1.8, 2.3], [5000.0, 9000.0]
REFERENCE_RS, REFERENCE_KELVIN = 2.05, 7000.0
TWISTS = [[0.0, 0.0, 0.0], [0.25, 0.1, -0.3]]
SAMPLED = {"rs": DENSITIES, "temperature_kelvin": TEMPERATURES, "twists": TWISTS}
FIXED = {"rs": DENSITIES, "protons": "fixed", "twists": TWISTS}
WALKERS = {"num_proton_walkers": 24, "num_electron_walkers": 3, "num_groups": 2}
NO_CLIPPING = 1e9

Found = dict[str, Tensor]


def build(keys: dict[str, Any], clip_width: float = 5.0, **settings: Any) -> VariationalFreeEnergy:
    """Every call makes the same networks; those of N = 2 or 4 have parts that none is close to zero."""
    module, _ = build_run(keys, trained=True, **(WALKERS | settings))
    module.clip_width = clip_width
    return module


def alone(module: VariationalFreeEnergy, strata: Strata, num_walkers: int) -> VariationalFreeEnergy:
    """The same networks in a run of other strata."""
    state = module.state
    own = VariationalState(
        state.system,
        strata,
        state.wavefunction,
        state.proton_density,
        state.sampler,
        num_walkers,
        state.counts.num_electron_walkers,
        num_groups=1,
    )
    return VariationalFreeEnergy(own, module.optimizer_settings, module.clip_width)


def each_stratum(strata: Strata) -> list[Strata]:
    """Every state point with one of its twists, in the order of the strata's numbers."""
    one = torch.ones(1, dtype=torch.float64)
    return [
        Strata((point,), TwistGrid(twist[None], one)) for point in strata.points for twist in strata.twists.fractions
    ]


def part(batch: Batch, own: Tensor | slice, stratum: Tensor) -> Batch:
    """Some walkers of a batch, with the numbers of their strata in their own run."""
    return Batch(batch.protons[own], batch.electrons[own], batch.states[own], stratum, batch.report)


def gradients(module: VariationalFreeEnergy, batch: Batch) -> Found:
    """Of the loss by the parameters of each block."""
    loss = module.loss(batch, module.state.energies(batch))
    blocks = {"wavefunction": module.wavefunction, "flow": module.proton_density}
    return {
        name: torch.cat(
            [part.flatten() for part in torch.autograd.grad(loss, list(block.parameters()), retain_graph=True)]
        )
        for name, block in blocks.items()
        if block is not None
    }


def score_blocks(module: VariationalFreeEnergy, batch: Batch) -> dict[str, ScoreBlock]:
    return module.score_blocks(batch, module.state.energies(batch))


def fisher_and_forces(module: VariationalFreeEnergy, batch: Batch, collectives: Collectives | None = None) -> Found:
    """S and f of each block."""
    found = {}
    for name, block in score_blocks(module, batch).items():
        found[f"{name} fisher"], found[f"{name} force"] = fisher_and_force(block, collectives or Collectives())
    return found


def mean(parts: list[Found]) -> Found:
    return {name: torch.stack([part[name] for part in parts]).mean(0) for name in parts[0]}


def assert_close(found: Found, expected: Found, tolerance: float = 1e-10) -> None:
    """Largest error relative to the largest number."""
    assert set(found) == set(expected)
    for name, value in expected.items():
        error = float((found[name] - value).abs().max() / value.abs().max())
        assert error < tolerance, f"{name}: relative error {error:.1e}"


def scales(strata: Strata) -> Found:
    """Documented factors of the energies: kT_0 / kT of the flow, (rs / rs_0)^2 of the wavefunction."""
    (point,) = strata.points
    own = {"wavefunction": torch.tensor((point.rs / REFERENCE_RS) ** 2)}
    return own | ({"flow": torch.tensor(REFERENCE_KELVIN / point.temperature_kelvin)} if point.kT else {})


@pytest.mark.parametrize("clip_width", [5.0, 0.5])
@pytest.mark.parametrize(("keys", "num_atoms"), [(SAMPLED, 2), (SAMPLED, 4), (FIXED, 2)])
def test_a_batch_is_the_mean_of_its_strata(keys: dict[str, Any], num_atoms: int, clip_width: float) -> None:
    """Two densities, two temperatures and two twists, against eight runs with the same walkers (four where the protons
    are fixed): gradients of the loss, Fisher matrices and forces. Narrow clipping would mix the strata if it could.
    """
    module = build(keys, clip_width, num_atoms=num_atoms)
    batch, strata = module.state.batch(), each_stratum(module.state.strata)
    slopes, fishers = [], []
    for number, only in enumerate(strata):
        own = (batch.stratum == number).nonzero().squeeze(1)
        single = alone(module, only, len(own))
        walkers, factors = part(batch, own, torch.zeros_like(own)), scales(only)
        slopes.append({name: factors[name] * value for name, value in gradients(single, walkers).items()})
        found = fisher_and_forces(single, walkers)
        fishers.append(found | {f"{name} force": scale * found[f"{name} force"] for name, scale in factors.items()})
    assert len(strata) == (8 if keys is SAMPLED else 4)
    assert_close(gradients(module, batch), mean(slopes))
    assert_close(fisher_and_forces(module, batch), mean(fishers))


@pytest.mark.parametrize("keys", [SAMPLED, FIXED])
def test_an_outlier_is_clipped_within_its_stratum(keys: dict[str, Any]) -> None:
    """It changes nothing in the other strata, and is bounded in its own."""
    module = build(keys, clip_width=2.0)
    batch = module.state.batch()
    before = score_blocks(module, batch)
    sample = module.state.energies(batch)
    sample.electronic.kinetic[3, 1] += 1e6
    after, others = module.score_blocks(batch, sample), batch.stratum != batch.stratum[3]
    for name, block in after.items():
        shape = (len(batch.stratum), -1)
        found, expected = (values.residuals.reshape(shape) for values in (block, before[name]))
        assert torch.equal(found[others], expected[others]), name
        assert 1.0 < found[3].abs().max() < 1e6, name


def test_one_walker_per_twist_is_compared_within_its_state_point() -> None:
    """The flow's centre needs two walkers: those of all twists of a state point stand in."""
    module = build(SAMPLED, NO_CLIPPING, num_proton_walkers=8)
    batch, state = module.state.batch(), module.state
    density = module.proton_density
    assert density is not None
    groups, index = flow_groups(module.state, batch), state.strata.state_index(batch.stratum)
    assert torch.equal(groups.label, index)
    assert groups.number == 4
    assert strata_groups(module.state, batch).number == 8
    assert flow_groups(build(SAMPLED).state, batch).number == 8

    log_prob, scores = density.scores(batch.protons, batch.states)
    deviation = batch.states.kT * log_prob + state.energies(batch).electronic.total.real.mean(1)
    for number in range(4):
        deviation[index == number] -= deviation[index == number].mean()
    scale = torch.tensor(
        [REFERENCE_KELVIN / state.strata.points[number].temperature_kelvin for number in index.tolist()]
    )
    expected = (scale * deviation) @ scores / len(scores)
    assert_close({"flow": gradients(module, batch)["flow"]}, {"flow": expected})
    # fisher_and_force removes the bias of means over two walkers
    assert_close({"flow": fisher_and_forces(module, batch)["flow force"]}, {"flow": 2.0 * expected})


def test_copies_of_fixed_protons_are_as_one_walker() -> None:
    """With all their electrons; at random twists each copy has a Hamiltonian of its own."""
    module = build(FIXED, clip_width=1.0, num_proton_walkers=8)
    batch = module.state.batch()
    together = build(FIXED, clip_width=1.0, num_proton_walkers=4, num_electron_walkers=6)
    assert torch.equal(batch.stratum[:4], batch.stratum[4:])
    assert torch.equal(batch.protons[:4], batch.protons[4:])
    electrons = torch.cat([batch.electrons[:4], batch.electrons[4:]], dim=1)
    whole = Batch(batch.protons[:4], electrons, batch.states[:4], batch.stratum[:4], batch.report)
    assert_close(gradients(module, batch), gradients(together, whole))
    assert_close(fisher_and_forces(module, batch), fisher_and_forces(together, whole))
    at_random = build(FIXED | {"twists": "random"})
    assert same_protons(at_random.state, at_random.state.batch()) is None


def copies_of_weighted_twists(module: VariationalFreeEnergy, batch: Batch) -> tuple[VariationalFreeEnergy, Batch]:
    """The 27 twists of the full grid with equal weights, in place of 14 with weights: each left-out twist is a copy of
    the kept one, with copies of its walkers.
    """
    reduced = module.state.strata
    kept, full = reduced.twists.fractions, twist_grid([3, 3, 3]).fractions
    same = [(full[:, None] - sign * kept).abs().amax(-1) < 1e-12 for sign in (1.0, -1.0)]
    index = (same[0] | same[1]).to(torch.int64).argmax(1)
    assert len(kept) == 14
    assert len(full) == 27
    assert (same[0] | same[1]).any(1).all()
    strata = Strata(reduced.points, TwistGrid(kept[index], torch.full((27,), 1 / 27, dtype=torch.float64)))
    per_stratum = len(batch.stratum) // len(reduced)
    stratum = torch.arange(per_stratum * len(strata)) % len(strata)
    copy = torch.arange(per_stratum).repeat_interleave(len(strata))
    walker = copy * len(reduced) + strata.state_index(stratum) * 14 + index[stratum % 27]
    return alone(module, strata, len(walker)), part(batch, walker, stratum)


def test_weights_of_twists_stand_for_copies() -> None:
    """A 3 x 3 x 3 grid that time reversal reduces, at two densities, with two walkers each."""
    keys = {"rs": DENSITIES, "twists": [3, 3, 3], "twist_symmetry": "time_reversal"}
    module = build(keys, clip_width=1.0, num_proton_walkers=56, num_electron_walkers=2)
    batch = module.state.batch()
    full, copies = copies_of_weighted_twists(module, batch)
    assert torch.equal(copies.stratum, full.state.strata.deal(len(copies.stratum), [0], 1))
    assert_close(gradients(module, batch), gradients(full, copies))
    assert_close(fisher_and_forces(module, batch), fisher_and_forces(full, copies))

    results = []
    for run, walkers in ((module, batch), (full, copies)):
        measured, sample = Measurement(run.state), run.state.energies(walkers)
        measured.reset()
        measured.add(walkers, sample)
        results.append((measured.result(0), step_values(run.state, walkers, sample)))
    for own, other in zip(results[0][0].states, results[1][0].states, strict=True):
        for name, found in own.estimates.items():
            assert found.value == pytest.approx(other.estimates[name].value, rel=1e-10, abs=1e-12), name
        assert own.diagnostics["local_energy_variance"] == pytest.approx(other.diagnostics["local_energy_variance"])
        for name, pairs in own.radial.items():
            assert pairs.g == pytest.approx(other.radial[name].g, rel=1e-10), name
    for name, value in results[0][1].items():
        if "error" not in name:
            assert float(value) == pytest.approx(float(results[1][1][name]), rel=1e-10, abs=1e-12), name


@pytest.mark.parametrize(
    ("keys", "num_walkers"),
    [(SAMPLED, 24), (SAMPLED, 8), (FIXED, 20), ({"rs": DENSITIES, "twists": [[0, 0, 0, 1], [0.25, 0.1, -0.3, 3]]}, 20)],
    ids=["several walkers per twist", "one walker per twist", "fixed protons", "weighted twists"],
)
def test_two_ranks_do_what_one_does(keys: dict[str, Any], num_walkers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has half the walkers: the mean of the gradients, Fisher matrix and force, and the values of a step."""
    for file in (module_file, step_values_file):
        monkeypatch.setattr(file, "Collectives", ThreadCollectives)
    # scores put parameters into the networks for a moment: each thread has its own
    module, *others = (build(keys, 0.5, num_proton_walkers=num_walkers) for _ in range(3))
    batch = module.state.batch()
    parts = [part(batch, own, batch.stratum[own]) for own in torch.arange(num_walkers).chunk(2)]
    assert not torch.equal(parts[0].stratum, parts[1].stratum)

    def work(rank: int, gather: Any) -> tuple[Found, ...]:
        ThreadCollectives.enter(rank, 2, gather)
        own, walkers = others[rank], parts[rank]
        fishers = fisher_and_forces(own, walkers, ThreadCollectives())
        return gradients(own, walkers), fishers, step_values(own.state, walkers, own.state.energies(walkers))

    (slopes, fishers, values), (other_slopes, *same) = run_processes(work, 2)
    assert_close(mean([slopes, other_slopes]), gradients(module, batch))
    expected = fisher_and_forces(module, batch), step_values(module.state, batch, module.state.energies(batch))
    for found in ((fishers, values), same):
        assert_close(found[0], expected[0])
        assert set(found[1]) == set(expected[1])
        for name, value in expected[1].items():
            assert float(found[1][name]) == pytest.approx(float(value), rel=1e-10, abs=1e-12), name
