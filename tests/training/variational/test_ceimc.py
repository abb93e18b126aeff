"""Coupled electron-ion Monte Carlo inside a run: what `test` writes, what it warns of, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lightning_vfe.errors import SettingError
from lightning_vfe.training.variational.callbacks import WriteSummary, recent_estimates
from lightning_vfe.training.variational.datamodule import MCMCDataModule
from lightning_vfe.training.variational.result_table import result_tables
from lightning_vfe.training.variational.sampling_verdict import common_reasons
from tests.helpers.variational import build_run, build_state
from tests.training.variational.test_module import FIXED, trainer

MOVES = {"proton_sampling": "ceimc", "ceimc_electron_walkers": 8}


def test_it_has_its_own_tables_without_free_energy(tmp_path: Path) -> None:
    """In a folder of its own, beside those of p(x); F and S are null there."""
    of_density = build_run()
    trainer(1, WriteSummary(tmp_path)).test(*of_density, verbose=False)
    before = (tmp_path / "summary.json").read_text()
    module, datamodule = build_run(moves=MOVES)
    writer = WriteSummary(tmp_path)
    trainer(1, writer).test(module, datamodule, verbose=False)
    assert (tmp_path / "summary.json").read_text() == before
    content = json.loads((tmp_path / "ceimc" / "summary.json").read_text())
    for name in ("free_energy_per_atom", "entropy_per_atom"):
        assert content[name] == {"value": None, "error": None}
        assert json.loads(before)[name]["value"] is not None
    for name in ("energy_per_atom", "pressure_gpa", "v_pp_per_atom"):
        assert content[name]["value"] is not None
        assert content[name]["error"] > 0
    assert (tmp_path / "ceimc" / "pair_correlation.csv").is_file()
    assert 0 <= content["diagnostics"]["ceimc_acceptance"] <= 1
    assert {"F", "S"} & recent_estimates(module).keys() == set()  # the progress bar
    assert module.result is not None
    assert any("do not give F and S" in note for note in module.result.notes)
    assert str(writer.messages[-1]) == f"tables: {tmp_path / 'ceimc'}"


def test_walkers_outside_of_the_density_change_nothing() -> None:
    """A map that folds is no reason to doubt protons that p(x) only proposes."""
    module, datamodule = build_run(moves=MOVES)
    trainer(1).test(module, datamodule, verbose=False)
    assert module.result is not None
    (state,) = module.result.states
    folded = replace(state, diagnostics=state.diagnostics | {"negative_determinants": 0.5})
    assert not any("det dz/dx" in reason for reason in folded.reasons)


def test_too_much_noise_is_told() -> None:
    module, datamodule = build_run(moves=MOVES)
    trainer(1).test(module, datamodule, verbose=False)
    result = module.result
    assert result is not None
    result.diagnostics |= {"ceimc_noise": 9.0, "ceimc_noise_per_freedom": 1.3}
    keys = "raise sampler.ceimc_electron_walkers, or lower sampler.ceimc_proton_width"
    assert any("noise" in reason and keys in reason for reason in common_reasons(result.diagnostics))
    assert any("noise" in note and keys in note for note in result.notes)
    result.diagnostics |= {"ceimc_noise": 0.5, "ceimc_noise_per_freedom": 0.1}
    assert not any("noise" in line for line in (*common_reasons(result.diagnostics), *result.notes))
    assert result_tables(result)


def test_training_with_it_is_refused() -> None:
    message = "proton_sampling = ceimc is for validate and test.*train with sampler.proton_sampling=direct"
    with pytest.raises(SettingError, match=message):
        trainer(1).fit(*build_run(moves=MOVES))


@pytest.mark.parametrize(
    ("keys", "moves", "message"),
    [
        ({"twists": "random"}, {}, "proton_sampling = ceimc needs the same twists in every sweep"),
        ({"twists": [2, 1, 1]}, {"ceimc_electron_walkers": 6}, "must be a multiple of 4, .* at least 8; set it to 8"),
        ({}, {"ceimc_electron_walkers": 2}, "ceimc_electron_walkers = 2 must be a multiple of 2, .* set it to 4"),
        ({}, {"ceimc_proton_width": 0.0}, "ceimc_proton_width = 0.0 must be positive"),
    ],
)
def test_settings_that_do_not_fit_are_refused(keys: dict[str, Any], moves: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        build_state(keys, MOVES | moves)


@pytest.mark.parametrize("wanted", [0.001, {"entropy_per_atom": 0.1}])
def test_errors_of_what_it_does_not_give_are_refused(wanted: Any) -> None:
    with pytest.raises(SettingError, match=r"target_error = .*, which the chains of .*=ceimc do not give"):
        MCMCDataModule(build_state({}, MOVES), target_error=wanted)
    MCMCDataModule(build_state({}, MOVES), target_error={"energy_per_atom": 0.001})


def test_fixed_protons_do_not_mind() -> None:
    """Nothing moves them, whatever the sampler is asked for."""
    trainer(1).fit(*build_run(FIXED, MOVES))
