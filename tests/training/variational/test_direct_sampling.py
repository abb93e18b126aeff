"""Direct sampling inside a run: exact resume, change of the way of sampling, processes, failed inversions."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch

from lightning_vfe.physics.free_energy import momentum_free_energy
from lightning_vfe.training.variational.callbacks import WriteSummary
from tests.helpers.ranks import assert_same_tables, fit_table
from tests.helpers.variational import assert_equal, build_run
from tests.training.variational.test_module import trainer


def build_direct():
    """The small N = 2 problem with base protons that are drawn."""
    return build_run(moves={"proton_sampling": "direct"})


def test_resumed_run_equals_the_uninterrupted_one(tmp_path: Path) -> None:
    straight = trainer(6)
    straight.fit(*build_direct())
    straight.save_checkpoint(tmp_path / "straight.ckpt")
    first = trainer(3)
    first.fit(*build_direct())
    first.save_checkpoint(tmp_path / "half.ckpt")
    second = trainer(6)
    module, datamodule = build_direct()
    second.fit(module, datamodule=datamodule, ckpt_path=str(tmp_path / "half.ckpt"))
    second.save_checkpoint(tmp_path / "resumed.ckpt")
    saved = [torch.load(tmp_path / f"{name}.ckpt", weights_only=True) for name in ("straight", "resumed")]
    assert saved[0]["walkers"]["fields"]["base_protons"].shape == (8, 2, 3)
    for part in ("state_dict", "optimizer_states", "walkers"):
        assert_equal(saved[0][part], saved[1][part], part)


def test_checkpoint_of_the_other_way_is_taken(tmp_path: Path) -> None:
    """From Metropolis chains on p(x) to direct sampling, and back."""
    runner, before = trainer(2), build_run()
    runner.fit(*before)
    runner.save_checkpoint(tmp_path / "first.ckpt")
    runner, (module, datamodule) = trainer(4), build_direct()
    runner.fit(module, datamodule=datamodule, ckpt_path=str(tmp_path / "first.ckpt"))
    assert module.state.walkers is not None
    assert "base_protons" in module.state.walkers.fields
    runner.save_checkpoint(tmp_path / "second.ckpt")
    runner, (module, datamodule) = trainer(5), build_run()
    runner.fit(module, datamodule=datamodule, ckpt_path=str(tmp_path / "second.ckpt"))
    assert module.state.walkers is not None
    assert "base_protons" not in module.state.walkers.fields


def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    """The same base protons and updates, up to the order of sums."""
    words = ["experiment=smoke", "logger=csv", "trainer.max_steps=4", "sampler.proton_sampling=direct"]
    words += ["sampler.chain_precision=float64"]
    tables = [fit_table(words, ranks, tmp_path / f"{ranks}" / "run") for ranks in (1, 2)]
    assert (tables[0]["num_failed_inversions"] == 0).all()
    assert (tables[0]["proton_acceptance"] == 1).all()
    assert_same_tables(*tables, tolerance=1e-8)


def test_entropy_where_a_part_of_the_base_is_not_reached(tmp_path: Path) -> None:
    """The map is the identity, but has no x where the first atom is in a quarter of the cell: S is that of the rest."""
    module, datamodule = build_direct()
    assert module.proton_density is not None
    flow, system = module.proton_density.flow, module.state.system
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.zero_()
    honest = flow.from_base

    def without_a_quarter(z, states):
        found = honest(z, states)
        length = system.cell.length * states.rs
        return found._replace(converged=found.converged & (z[:, 0, 0] > 0.25 * length))

    flow.from_base = without_a_quarter
    datamodule.test_steps = 100
    trainer(1, WriteSummary(tmp_path)).test(module, datamodule, verbose=False)
    summary = json.loads((tmp_path / "summary.json").read_text())
    share = 0.25
    counted = summary["diagnostics"]["unreached_fraction"]
    assert abs(counted - share) < 4.0 * (share * (1.0 - share) / (100 * 8)) ** 0.5
    volume = system.cell.length**3 * module.state.strata.points[0].rs ** 3
    kT = torch.tensor(module.state.strata.points[0].kT)
    momenta = 1.5 - float(momentum_free_energy(system, kT) / kT) / 2.0
    exact = momenta + (2.0 * math.log(volume) + math.log(1.0 - counted)) / 2.0
    assert abs(summary["entropy_per_atom"]["value"] - exact) < 1e-9
    assert any("could not be inverted for a fraction" in reason for reason in summary["reasons"])
