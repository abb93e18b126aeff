"""Direct sampling inside a run: exact resume, change of the way of sampling, processes, failed inversions."""

from __future__ import annotations

import json
from pathlib import Path

import torch

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


def test_failed_inversions_are_refused(tmp_path: Path) -> None:
    """One walker that stays in one sweep: F and S are not reported, and the reason says why."""
    module, datamodule = build_direct()
    runner = trainer(1, WriteSummary(tmp_path))
    runner.fit(module, datamodule)
    assert module.proton_density is not None
    flow = module.proton_density.flow
    honest, calls = flow.from_base, []

    def once(z, states):
        found = honest(z, states)
        calls.append(len(z))
        failed = torch.tensor(len(calls) == 5) & (torch.arange(len(z)) == 3)
        return found._replace(converged=found.converged & ~failed)

    flow.from_base = once
    runner.test(module, datamodule, verbose=False)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert len(calls) == 2 + 8
    assert summary["diagnostics"]["num_failed_inversions"] == 1 / 8
    assert summary["free_energy_per_atom"] == summary["entropy_per_atom"] == {"value": None, "error": None}
    assert summary["energy_per_atom"]["value"] is not None
    assert not summary["converged"]
    assert any("sampler.proton_sampling=delayed" in reason for reason in summary["reasons"])
