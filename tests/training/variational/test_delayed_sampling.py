"""Delayed acceptance inside a run: exact resume, processes, what is reported, and what each way is given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.sampling.delayed import DelayedDensity
from lightning_vfe.sampling.direct import TransportedDensity
from lightning_vfe.state.targets import ProtonTargets
from lightning_vfe.training.variational.callbacks import WriteSummary
from lightning_vfe.training.variational.module import VariationalFreeEnergy
from tests.helpers.flows import make_flow, random_protons
from tests.helpers.ranks import assert_same_tables, fit_table
from tests.helpers.states import states_at
from tests.helpers.variational import assert_equal, build_run
from tests.training.variational.test_module import trainer


def build_delayed(precision: str = "float32"):
    """The small N = 2 problem, with a map that is not the identity."""
    moves = {"num_proton_steps": 3, "proton_sampling": "delayed"}
    module, datamodule = build_run(moves=moves, chain_precision=precision)
    assert module.proton_density is not None
    module.proton_density.flow = make_flow(module.state.strata.single.cell(2), strength=0.5)
    return module, datamodule


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_resumed_run_equals_the_uninterrupted_one(precision: str, tmp_path: Path) -> None:
    straight = trainer(6)
    straight.fit(*build_delayed(precision))
    straight.save_checkpoint(tmp_path / "straight.ckpt")
    first = trainer(3)
    first.fit(*build_delayed(precision))
    first.save_checkpoint(tmp_path / "half.ckpt")
    second = trainer(6)
    module, datamodule = build_delayed(precision)
    second.fit(module, datamodule=datamodule, ckpt_path=str(tmp_path / "half.ckpt"))
    second.save_checkpoint(tmp_path / "resumed.ckpt")
    saved = [torch.load(tmp_path / f"{name}.ckpt", weights_only=True) for name in ("straight", "resumed")]
    assert "base_protons" not in saved[0]["walkers"]["fields"]
    for part in ("state_dict", "optimizer_states", "walkers"):
        assert_equal(saved[0][part], saved[1][part], part)


def test_final_decisions_are_reported(tmp_path: Path) -> None:
    """In the summary's diagnostics, and behind the progress bar's label; other ways of sampling have none."""
    module, datamodule = build_delayed()
    runner = trainer(2, WriteSummary(tmp_path))
    runner.fit(module, datamodule)
    assert 0.0 < float(runner.callback_metrics["delayed_acceptance"]) <= 1.0
    runner.test(module, datamodule, verbose=False)
    diagnostics = json.loads((tmp_path / "summary.json").read_text())["diagnostics"]
    assert 0.3 < diagnostics["delayed_acceptance"] <= 1.0
    assert diagnostics["num_stranded"] == 0
    plain: tuple[VariationalFreeEnergy, object] = build_run()
    runner = trainer(1)
    runner.fit(*plain)
    assert "delayed_acceptance" not in runner.callback_metrics


def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    """The same protons and updates, up to the order of sums."""
    words = ["experiment=smoke", "logger=csv", "trainer.max_steps=4", "sampler.proton_sampling=delayed"]
    words += ["sampler.chain_precision=float64"]
    tables = [fit_table(words, ranks, tmp_path / f"{ranks}" / "run") for ranks in (1, 2)]
    assert (tables[0]["delayed_acceptance"] > 0).all()
    assert_same_tables(*tables, tolerance=1e-8)


@torch.no_grad()
def test_each_way_of_sampling_gets_its_own_density() -> None:
    """Chains are rounded; what decides in the end, and the base of direct sampling, are exact."""
    module, _ = build_delayed()
    density = module.proton_density
    assert isinstance(density, ProtonDensity)
    cell = module.state.strata.single.cell(2)
    x, states = random_protons(cell, 5), states_at(cell, 5)
    in_units_of_rs = x / cell.rs
    exact = density.log_prob(x, states)
    rounded = ProtonTargets(density, "metropolis", torch.float32).at(states)
    assert callable(rounded)
    assert 0 < (rounded(in_units_of_rs) - exact).abs().max() < 1e-4
    assert torch.equal(ProtonTargets(density, "metropolis").at(states)(in_units_of_rs), exact)  # type: ignore[operator]
    delayed = ProtonTargets(density, "delayed", torch.float32).at(states)
    assert isinstance(delayed, DelayedDensity)
    assert torch.equal(delayed.log_prob(in_units_of_rs), exact)
    assert 0 < (delayed.surrogate(in_units_of_rs) - density.surrogate_log_prob(x, states)).abs().max() < 1e-4
    direct = ProtonTargets(density, "direct", torch.float32).at(states)
    assert isinstance(direct, TransportedDensity)
    moved = in_units_of_rs + density.flow.displacement(x, states) / cell.rs
    assert torch.equal(direct.to_base(in_units_of_rs), moved)
