"""Equilibration before a measurement: it goes on while the walkers drift, and says so where they do not settle."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lightning_vfe.state.settling import MAX_ROUNDS, Settling, settle
from lightning_vfe.state.variational_state import Track, VariationalState
from tests.helpers.trainers import quiet_trainer
from tests.helpers.variational import build_run, build_state

TWO_STATES = {"states": [[1.8, 5000.0], [2.3, 9000.0]]}


def with_drift(state: VariationalState, drift: Callable[[int], float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the walkers two terms of noise, and the second one a drift with the sweeps at the last state point."""
    rng, walkers = np.random.default_rng(1), state.place()

    def energies(batch: Any) -> Any:
        last = state.strata.state_index(batch.stratum) == state.strata.num_states - 1
        noise = torch.from_numpy(rng.normal(size=(2, len(last))))
        return SimpleNamespace(terms={"still": noise[0], "energy": noise[1] + drift(walkers.num_sweeps) * last})

    monkeypatch.setattr(state, "energies", energies)


def counted(rounds: list[int]) -> Track:
    """Writes down the number of sweeps of each round."""

    def progress(sweeps: Iterable[int]) -> Iterable[int]:
        rounds.append(len(list(sweeps)))
        return range(rounds[-1])

    return progress


@pytest.mark.parametrize("keys", [{}, TWO_STATES, {"protons": "fixed"}], ids=["one", "two", "fixed"])
def test_walkers_in_equilibrium_take_one_round(keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    state = build_state(keys, num_proton_walkers=16)
    if "protons" not in keys:
        with_drift(state, lambda sweep: 0.0, monkeypatch)
    rounds: list[int] = []
    assert settle(state, 6, counted(rounds)) == Settling(6, ())
    assert rounds == [6]
    assert state.walkers is not None
    assert state.walkers.num_sweeps == 6


def test_a_start_far_off_takes_more_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    state, rounds = build_state(TWO_STATES, num_proton_walkers=32), list[int]()
    with_drift(state, lambda sweep: 8.0 * np.exp(-sweep / 4.0), monkeypatch)
    found = settle(state, 6, counted(rounds))
    assert found == Settling(sum(rounds), ())
    assert rounds in ([6, 12], [6, 12, 24])


def test_walkers_that_never_settle_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    state, rounds = build_state(TWO_STATES, num_proton_walkers=32), list[int]()
    with_drift(state, lambda sweep: 1.0 * sweep, monkeypatch)
    assert settle(state, 4, counted(rounds)) == Settling(60, ("energy",))
    assert rounds == [4, 8, 16, 32]
    assert len(rounds) == MAX_ROUNDS


def test_the_verdict_knows_of_the_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    module, datamodule = build_run({})
    quiet_trainer(1).test(module, datamodule, verbose=False)
    assert module.result is not None
    given = module.result.diagnostics
    assert (given["equilibration_steps"], given["drifting_terms"]) == (2.0, 0.0)
    monkeypatch.setattr("lightning_vfe.state.settling.drifting_terms", lambda *_: ["energy_per_atom"])
    for verb in ("test", "validate"):
        module, datamodule = build_run({})
        getattr(quiet_trainer(1), verb)(module, datamodule, verbose=False)
        assert module.result is not None
        reason = "the walkers drift after 30 sweeps of equilibration; raise datamodule.equilibration_steps"
        assert reason in module.result.reasons
