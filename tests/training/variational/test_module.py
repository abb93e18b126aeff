"""Module, datamodule and callbacks together: exact resume, processes, guards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from lightning_vfe.state.batch import Batch, Sample
from lightning_vfe.training.variational.callbacks import WriteSummary, recent_estimates
from lightning_vfe.training.variational.module import VariationalFreeEnergy
from lightning_vfe.training.variational.nan_guard import NaNGuard
from lightning_vfe.training.variational.optimizers import Adam, NaturalGradient
from tests.helpers.trainers import quiet_trainer
from tests.helpers.variational import assert_equal, build_run

FIXED = {"protons": "fixed"}


def trainer(max_steps: int, *callbacks: L.Callback) -> L.Trainer:
    return quiet_trainer(max_steps, NaNGuard(), *callbacks, devices=1)


@pytest.mark.parametrize("optimizer", [Adam(), NaturalGradient()])
@pytest.mark.parametrize("fixed", [False, True])
def test_resumed_run_equals_the_uninterrupted_one(
    tmp_path: Path, fixed: bool, optimizer: Adam | NaturalGradient
) -> None:
    """Stopped in the middle of an epoch; parameters, optimizer, walkers, generators, widths and counters."""
    keys = FIXED if fixed else {}
    straight = trainer(8)
    straight.fit(*build_run(keys, optimizer=optimizer))
    straight.save_checkpoint(tmp_path / "straight.ckpt")

    first = trainer(4)
    first.fit(*build_run(keys, optimizer=optimizer))
    first.save_checkpoint(tmp_path / "half.ckpt")
    second = trainer(8)
    module, datamodule = build_run(keys, optimizer=optimizer)
    second.fit(module, datamodule=datamodule, ckpt_path=str(tmp_path / "half.ckpt"))
    second.save_checkpoint(tmp_path / "resumed.ckpt")

    saved = [torch.load(tmp_path / f"{name}.ckpt", weights_only=True) for name in ("straight", "resumed")]
    assert saved[0]["global_step"] == 8
    assert saved[0]["walkers"]["num_sweeps"] == 8 + 2
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "walkers", "callbacks", "system"):
        assert_equal(saved[0][part], saved[1][part], part)


def test_summary_holds_every_term_with_its_error(tmp_path: Path) -> None:
    module, datamodule = build_run()
    runner = trainer(2, WriteSummary(tmp_path))
    runner.fit(module, datamodule)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    walkers = module.state.walkers
    assert walkers is not None
    widths = {name: value.clone() for name, value in walkers.log_widths.items()}
    runner.test(module, datamodule, verbose=False)
    assert_equal(before, dict(module.state_dict()))
    assert set(widths) == {"protons", "electrons"}
    assert_equal(widths, walkers.log_widths)

    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["step"] == 2
    kT = 6000.0 / 315775.02
    energy, free_energy = summary["energy_per_atom"]["value"], summary["free_energy_per_atom"]["value"]
    assert abs((energy - free_energy) / kT - summary["entropy_per_atom"]["value"]) < 1e-5
    parts = ("kinetic_energy", "v_pp", "v_pe", "v_ee")
    assert abs(sum(summary[f"{part}_per_atom"]["value"] for part in parts) - energy) < 1e-12
    for name in ("free_energy", "energy", "v_pp", "v_pe", "v_ee", "kinetic_energy"):
        assert summary[f"{name}_per_atom"]["error"] > 0
    assert summary["base_free_energy_per_atom"]["error"] == 0
    assert summary["converged"] is (not summary["reasons"])
    assert (tmp_path / "pair_correlation.csv").exists()


def test_negative_determinants_are_refused(tmp_path: Path) -> None:
    """A folding map: F and S are not reported, and the reason says why."""
    module, datamodule = build_run()
    runner = trainer(1, WriteSummary(tmp_path))
    runner.fit(module, datamodule)
    density = module.proton_density
    assert density is not None
    honest = density.evaluate
    density.evaluate = lambda x, states: honest(x, states)._replace(  # type: ignore[method-assign]
        sign_det_dzdx=-torch.ones(len(x))
    )
    runner.test(module, datamodule, verbose=False)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["free_energy_per_atom"] == {"value": None, "error": None}
    assert summary["entropy_per_atom"] == {"value": None, "error": None}
    assert summary["energy_per_atom"]["value"] is not None
    assert not summary["converged"]
    assert any("negative" in reason for reason in summary["reasons"])


@pytest.mark.parametrize("optimizer", [Adam(), NaturalGradient()])
def test_broken_gradients_change_no_parameter(optimizer: Adam | NaturalGradient) -> None:
    module, datamodule = build_run(FIXED, optimizer=optimizer)
    start = {name: value.clone() for name, value in module.wavefunction.state_dict().items()}
    whole = module.state.energies

    def broken(batch: Batch) -> Sample:
        sample = whole(batch)
        sample.electronic.kinetic.mul_(float("nan"))
        return sample

    module.state.energies = broken  # type: ignore[method-assign]
    with pytest.raises(FloatingPointError, match="parameters are those of the last good step"):
        trainer(50, Recent()).fit(module, datamodule)
    assert_equal(start, dict(module.wavefunction.state_dict()))


class Recent(L.Callback):
    """What the progress bar would show after every step."""

    def __init__(self) -> None:
        self.shown: list[dict[str, str]] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, VariationalFreeEnergy)
        self.shown.append(recent_estimates(pl_module))


def test_one_walker_without_an_energy_stops_no_training() -> None:
    module, datamodule = build_run()
    energies, recent = module.state.energies, Recent()

    def sometimes_broken(batch: Any) -> Any:
        sample = energies(batch)
        if module.trained_steps in (0, 2):
            for term in sample.terms.values():
                term[1] = torch.nan
        return sample

    module.state.energies = sometimes_broken  # type: ignore[method-assign]
    trainer(4, recent).fit(module, datamodule)
    assert recent.shown[0] == dict.fromkeys(("F", "E", "S", "P", "R-hat"), "nan")
    assert recent.shown[1]["F"] == recent.shown[2]["F"] != recent.shown[3]["F"], "the broken step is left out"
    assert all("nan" not in shown["E"] for shown in recent.shown[1:])
    module.state.energies = energies  # type: ignore[method-assign]


def test_energies_that_are_not_finite_are_no_result() -> None:
    module, datamodule = build_run()
    energies = module.state.energies

    def broken(batch: Any) -> Any:
        sample = energies(batch)
        sample.terms["energy_per_atom"][1] = torch.inf
        return sample

    module.state.energies = broken  # type: ignore[method-assign]
    with pytest.raises(FloatingPointError, match=r"energy_per_atom is not finite for 8 of 64 samples.*ckpt_path"):
        trainer(1).test(module, datamodule, verbose=False)


def test_checkpoint_of_another_system_is_refused(tmp_path: Path) -> None:
    runner = trainer(1)
    runner.fit(*build_run())
    runner.save_checkpoint(tmp_path / "last.ckpt")
    module, datamodule = build_run({"rs": 1.5})
    with pytest.raises(ValueError, match=r"rs = 1.5 but the checkpoint was made with 2.0"):
        trainer(2).fit(module, datamodule=datamodule, ckpt_path=str(tmp_path / "last.ckpt"))


@pytest.mark.parametrize("names", [(Adam, NaturalGradient), (NaturalGradient, Adam)])
def test_a_run_does_not_go_on_with_another_optimizer(tmp_path: Path, names: tuple[type, type]) -> None:
    runner = trainer(1)
    runner.fit(*build_run(optimizer=names[0]()))
    runner.save_checkpoint(tmp_path / "last.ckpt")
    module, datamodule = build_run(optimizer=names[1]())
    with pytest.raises(ValueError, match=f"optimizer = {names[1].__name__} but the checkpoint was trained with"):
        trainer(2).fit(module, datamodule=datamodule, ckpt_path=str(tmp_path / "last.ckpt"))
    trainer(2).test(module, datamodule=datamodule, ckpt_path=str(tmp_path / "last.ckpt"), verbose=False)


def test_checkpoint_without_walkers_is_refused(tmp_path: Path) -> None:
    """It would start new ones in silence."""
    runner = trainer(1)
    runner.fit(*build_run())
    runner.save_checkpoint(tmp_path / "last.ckpt")
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    content["Renamed"] = content.pop("walkers")
    torch.save(content, tmp_path / "last.ckpt")
    module, datamodule = build_run()
    with pytest.raises(ValueError, match="holds no walkers"):
        trainer(2).fit(module, datamodule=datamodule, ckpt_path=str(tmp_path / "last.ckpt"))


@pytest.mark.parametrize(
    ("keys", "settings", "message"),
    [
        ({}, {"num_proton_walkers": 6}, "num_proton_walkers = 6 must be a multiple of"),
        ({}, {"num_electron_walkers": 1}, "num_electron_walkers = 1 must be at least 2"),
        ({}, {"num_proton_walkers": 1, "num_groups": 1}, "num_proton_walkers = 1 must be at least 2"),
        ({"rs": [1.5, 2.0]}, {"num_proton_walkers": 2, "num_groups": 2}, "num_proton_walkers = 2 must be at least 4"),
        (
            FIXED,
            {"num_proton_walkers": 1, "num_groups": 1, "num_electron_walkers": 1},
            "num_electron_walkers = 1 must be at least 2",
        ),
        ({}, {"test_steps": 0}, "test_steps = 0 must be at least 1"),
        ({}, {"equilibration_sweeps": 0}, "equilibration_sweeps = 0 must be at least 1"),
        ({}, {"ewald_accuracy": 0.0}, "ewald_accuracy = 0.0"),
        ({"protons": "frozen"}, {}, "protons = frozen is unknown"),
        ({"twists": [3, 1, 1]}, {}, "multiple of the 3 twists"),
        (
            {"twists": [[0.0, 0.0, 0.0, 1.0], [0.25, 0.0, 0.0, 2.0]]},
            {"num_proton_walkers": 2, "num_groups": 2},
            "twists of different weights need two; set it to 4",
        ),
    ],
)
def test_bad_settings_are_one_clear_line(keys: dict[str, Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        build_run(keys, **settings)
    assert "\n" not in str(error.value)
