"""The variational state: equilibration, measurements, exact continuation, random twists, and its twins."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch

from lightning_vfe.sampling.random import WalkerRandom
from lightning_vfe.state.batch import Batch
from lightning_vfe.state.variational_state import VariationalState
from tests.helpers.variational import assert_equal, build_state
from tests.helpers.wavefunctions import trained_like

MIXED = {"rs": [1.8, 2.3], "temperature_kelvin": [5000.0, 9000.0]}
TWISTED = {"rs": [1.8, 2.3], "twists": [[0.0, 0.0, 0.0], [0.25, 0.1, -0.3]]}
FIXED = {"protons": "fixed"}


def num_sweeps(state: VariationalState) -> int:
    assert state.walkers is not None
    return state.walkers.num_sweeps


def observed(batch: Batch) -> torch.Tensor:
    """Any number of each proton walker."""
    return batch.protons.square().sum((1, 2)) + batch.states.kT


@pytest.mark.parametrize(
    ("use", "own"),
    [
        (lambda state: state.sweep(), 1),
        (lambda state: state.batch(), 1),
        (lambda state: state.energies(), 1),
        (lambda state: state.expect(observed, num_sweeps=5), 5),
    ],
    ids=["sweep", "batch", "energies", "expect"],
)
def test_new_walkers_are_equilibrated_before_they_are_used(use: Callable[[VariationalState], Any], own: int) -> None:
    state = build_state(equilibration_sweeps=3)
    assert state.walkers is None
    use(state)
    walkers = state.walkers
    assert walkers is not None
    assert walkers.equilibrated
    assert num_sweeps(state) == 3 + own
    widths = dict(walkers.log_widths)
    assert widths["electrons"].exp() != pytest.approx(state.sampler.initial_electron_width), "adapted"
    use(state)
    assert state.walkers is walkers
    assert num_sweeps(state) == 3 + 2 * own
    assert_equal(dict(walkers.log_widths), widths)


def test_equilibration_adapts_new_walkers_only() -> None:
    state = build_state()
    state.equilibrate(4)
    assert state.walkers is not None
    assert num_sweeps(state) == 4
    widths = dict(state.walkers.log_widths)
    state.equilibrate()
    assert num_sweeps(state) == 4 + state.equilibration_sweeps
    assert_equal(dict(state.walkers.log_widths), widths)
    state.equilibrate(1, adapt=True)
    assert state.walkers.log_widths["electrons"] != widths["electrons"]
    seen: list[int] = []
    state.equilibrate(3, progress=lambda sweeps: (seen.append(number) or number for number in sweeps))
    assert seen == [0, 1, 2]
    assert num_sweeps(state) == 4 + state.equilibration_sweeps + 1 + 3


@pytest.mark.parametrize("keys", [{}, MIXED, TWISTED, FIXED | TWISTED], ids=["one", "states", "twists", "fixed"])
def test_expect_is_the_mean_of_what_energies_gives(keys: dict[str, Any]) -> None:
    """For each state point, value and error; a number of each electron walker is averaged where the protons move."""
    first, second = build_state(keys, trained=True), build_state(keys, trained=True)

    def observable(batch: Batch) -> torch.Tensor:
        return first.energies(batch).electronic.total.real / 2

    found = first.expect(observable, num_sweeps=6)
    series = []
    for _ in range(6):
        batch = second.batch()
        protons = 0.0 if second.is_fixed else 1.5 * batch.states.kT  # their kinetic energy
        series.append(second.energies(batch).terms["energy_per_atom"] - protons)
    series, stratum = torch.stack(series), second.independent_strata(batch)
    expected = second.strata.estimate(series, stratum)
    assert len(found) == second.strata.num_states
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-10)
        assert one.error > 0
    index = second.strata.state_index(stratum)
    for number, one in enumerate(found):
        assert one.value == pytest.approx(float(series[:, index == number].mean()), rel=1e-12)


CHAINS = {
    "one state": ({}, {}, {}),
    "mixed states": (MIXED, {}, {}),
    "random twists": ({"rs": [1.8, 2.3], "twists": "random"}, {}, {}),
    "fixed protons": (FIXED | TWISTED, {}, {}),
    "direct": (MIXED, {"proton_sampling": "direct"}, {}),
    "ceimc": (TWISTED, {"proton_sampling": "ceimc", "ceimc_electron_walkers": 8}, {}),
    "float32 chains": (MIXED, {"proton_sampling": "delayed"}, {"chain_precision": "float32"}),
}


@pytest.mark.parametrize(("keys", "moves", "settings"), CHAINS.values(), ids=CHAINS)
def test_saved_chains_continue_bit_for_bit(
    keys: dict[str, Any], moves: dict[str, Any], settings: dict[str, Any]
) -> None:
    first = build_state(keys, moves, trained=True, **settings)
    assert first.state_dict() == {}
    for _ in range(2):
        first.sweep(adapt=True)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = build_state(keys, moves, trained=True, **settings)
    second.place()
    second.load_state_dict(torch.load(file, weights_only=True))
    assert_equal(second.state_dict(), first.state_dict())
    for _ in range(2):
        assert_equal(second.sweep(adapt=True), first.sweep(adapt=True))
    assert_equal(second.state_dict(), first.state_dict())
    assert num_sweeps(second) == 2 + 4
    assert_equal(second.energies(second.current()).terms, first.energies(first.current()).terms)


@pytest.mark.parametrize(
    ("keys", "name"),
    [({"rs": 1.9}, "rs"), ({"temperature_kelvin": 5000.0}, "kT"), ({"twists": [[0.25, 0.0, 0.0]]}, "twist")],
)
def test_chains_of_another_state_are_refused(keys: dict[str, Any], name: str) -> None:
    first, second = build_state(), build_state(keys)
    first.sweep()
    second.place()
    with pytest.raises(ValueError, match=f"saved walkers have other values of {name} than this run"):
        second.load_state_dict(first.state_dict())


def test_random_twists_are_new_in_every_sweep() -> None:
    """Each walker has its own, uniform in (-1/2, 1/2]^3."""
    state = build_state({"rs": [1.8, 2.3], "twists": "random"}, num_proton_walkers=32, num_electron_walkers=2)
    twists = torch.stack([state.batch().states.twist for _ in range(20)])  # (sweeps, W, 3)
    assert twists.unique().numel() == twists.numel()
    assert twists.min() > -0.5
    assert twists.max() <= 0.5
    # mean 0 and variance 1/12 of 1920 numbers; the variance of a squared deviation is 1/180
    assert abs(float(twists.mean())) < 4 * (1 / 12 / twists.numel()) ** 0.5
    assert abs(float(twists.var()) - 1 / 12) < 4 * (1 / 180 / twists.numel()) ** 0.5
    # two strata, and no more: a state point's walkers are compared with each other
    assert len(state.strata) == 2
    assert torch.equal(state.current().stratum, torch.arange(32) % 2)


@pytest.mark.parametrize("keys", [MIXED, {"rs": [1.8, 2.3], "twists": "random"}], ids=["states", "random twists"])
@pytest.mark.parametrize("num_ranks", [2, 4])
def test_walkers_belong_to_their_groups_on_any_number_of_ranks(keys: dict[str, Any], num_ranks: int) -> None:
    """The same states, twists and chains. (Widths are adapted to all walkers, which one process here does not see.)"""
    states = [build_state(keys, trained=True) for _ in range(1 + num_ranks)]
    states[0].place()
    for rank, state in enumerate(states[1:]):
        state.place(rank=rank, num_ranks=num_ranks)
    for state in states:
        state.equilibrate(2, adapt=False)
    whole, *parts = [state.batch() for state in states]
    assert torch.equal(torch.cat([part.stratum for part in parts]), whole.stratum)
    for name in ("rs", "kT", "twist"):
        assert torch.equal(torch.cat([getattr(part.states, name) for part in parts]), getattr(whole.states, name))
    for name in ("protons", "electrons"):
        torch.testing.assert_close(
            torch.cat([getattr(part, name) for part in parts]), getattr(whole, name), rtol=0, atol=1e-10
        )


def test_groups_must_divide_into_the_processes() -> None:
    with pytest.raises(ValueError, match="num_groups = 4 must be a multiple of the number of processes, 3"):
        build_state().place(num_ranks=3)


def test_walkers_are_dealt_to_the_states_and_start_at_their_densities() -> None:
    state = build_state(TWISTED, structure="molecular", num_proton_walkers=16)
    walkers = state.place()
    assert state.place(rank=3, num_ranks=4) is walkers, "those that are there stay"
    assert torch.equal(walkers["stratum"], torch.arange(16) % 4)
    batch = state.current()
    assert batch.states.rs.tolist() == [1.8, 1.8, 2.3, 2.3] * 4
    assert batch.states.twist[:2].tolist() == TWISTED["twists"]
    # molecules have their bond length, 1.4 bohr, at every density
    cell = state.system.cell
    bond = cell.minimum_image(walkers.protons[:, 0] - walkers.protons[:, 1]).norm(dim=-1)
    torch.testing.assert_close(bond * batch.states.rs, torch.full((16,), 1.4))
    assert torch.equal(batch.electrons, walkers.electrons * walkers["rs"][:, None, None, None])


def test_put_takes_the_place_of_the_walkers() -> None:
    state = build_state(TWISTED, equilibration_sweeps=1)
    state.sweep()
    before, random = state.walkers, WalkerRandom(range(4), seed=7)
    protons = 3.0 * torch.rand(8, 2, 3) * state.system.cell.length
    stratum = torch.arange(8) % 4
    walkers = state.put(protons, stratum.flip(0), random)
    assert state.walkers is walkers is not before
    assert state.place() is walkers
    torch.testing.assert_close(walkers.protons, state.system.cell.wrap(protons))
    assert torch.equal(walkers["stratum"], stratum.flip(0))
    assert walkers["rs"].tolist() == [2.3, 2.3, 1.8, 1.8] * 2
    assert walkers.random is random
    assert not walkers.equilibrated
    assert walkers.num_sweeps == 0
    batch = state.batch()
    assert walkers.equilibrated
    assert num_sweeps(state) == 2
    assert torch.equal(batch.stratum, stratum.flip(0))


@pytest.mark.parametrize("proton_sampling", ["metropolis", "delayed"])
def test_persistent_twins_follow_the_parameters(proton_sampling: str) -> None:
    """After a change of the parameters they give the chains of fresh ones. Drifts show that float32 is at work."""

    def build(precision: str = "float32") -> VariationalState:
        moves = {"proton_sampling": proton_sampling, "proton_proposal": "langevin", "electron_proposal": "langevin"}
        return build_state(MIXED, moves, trained=True, chain_precision=precision)

    def change(state: VariationalState) -> None:
        trained_like(state.wavefunction, seed=5, size=0.1)
        assert state.proton_density is not None
        trained_like(state.proton_density, seed=6, size=0.1)

    old, fresh, stale, exact = build(), build(), build(), build("float64")
    old.sweep()
    saved = old.state_dict()
    for state in (fresh, stale, exact):
        state.place()
        state.load_state_dict(saved)
    for state in (old, fresh, exact):
        change(state)
    for state in (old, fresh, stale, exact):
        state.sweep()
        state.sweep()
    assert_equal(old.state_dict(), fresh.state_dict())
    for other in (stale, exact):
        assert other.walkers is not None
        assert old.walkers is not None
        assert not torch.equal(other.walkers.electrons, old.walkers.electrons)
        assert not torch.equal(other.walkers.protons, old.walkers.protons)


def test_fixed_protons_stay() -> None:
    state = build_state(FIXED | TWISTED)
    start = state.place().protons.clone()
    batch = state.batch()
    for _ in range(3):
        batch = state.batch()
    assert state.walkers is not None
    assert torch.equal(state.walkers.protons, start)
    for rs in (1.8, 2.3):
        copies = batch.protons[batch.states.rs == rs] / rs
        torch.testing.assert_close(copies, start[:1].expand_as(copies))
    assert not [name for name in batch.report if "proton" in name]
    sample = state.energies(batch)
    terms = sample.terms
    # electron walkers are independent: one number for each
    assert sample.protons is None
    assert terms["energy_per_atom"].shape == (8 * 2,)
    assert torch.equal(state.independent_strata(batch), batch.stratum.repeat_interleave(2))
    assert torch.equal(terms["energy_per_atom"], terms["free_energy_per_atom"])
    assert torch.equal(terms["kinetic_energy_per_atom"], terms["electron_kinetic_energy_per_atom"])
    assert not terms["entropy_per_atom"].any()
    assert "log_det_per_atom" not in terms
    torch.testing.assert_close(2 * terms["energy_per_atom"], sample.electronic.total.real.flatten())
    assert set(state.scores(batch)) == {"wavefunction"}


def test_energies_and_scores_of_all_states_are_those_of_each() -> None:
    """A batch of four state points, against the same walkers in states of their own."""
    state = build_state(MIXED, trained=True, num_proton_walkers=16)
    batch = state.batch()
    sample, scores = state.energies(batch), state.scores(batch, chunk_size=5)
    sizes = [sum(p.numel() for p in block.parameters()) for block in (state.wavefunction, state.proton_density)]
    assert scores["wavefunction"].shape == (16, 2, 2, sizes[0])
    assert scores["flow"].shape == (16, sizes[1])
    for number, point in enumerate(state.strata.points):
        own = batch.stratum == number
        keys = {"rs": point.rs, "temperature_kelvin": point.temperature_kelvin}
        alone = build_state(keys, num_proton_walkers=4)
        alone.wavefunction, alone.proton_density = state.wavefunction, state.proton_density
        part = Batch(batch.protons[own], batch.electrons[own], batch.states[own], batch.stratum[own] * 0, {})
        for name, term in alone.energies(part).terms.items():
            torch.testing.assert_close(sample.terms[name][own], term, rtol=1e-10, atol=1e-12)
        for name, value in alone.scores(part).items():
            torch.testing.assert_close(scores[name][own], value, rtol=1e-10, atol=1e-12)
