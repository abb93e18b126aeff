"""What ends a measurement, and other random numbers for it."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lightning_vfe.errors import SettingError
from lightning_vfe.models.base.boltzmann import BoltzmannBase
from lightning_vfe.models.potential.yukawa import YukawaPotential
from lightning_vfe.training.variational.callbacks import ProgressBar
from lightning_vfe.training.variational.ending import Ending, wanted_errors
from lightning_vfe.training.variational.summary import TestResult
from tests.helpers.ranks import run_ranks
from tests.helpers.trainers import quiet_trainer
from tests.helpers.variational import build_run
from tests.physics.test_statistics import autoregressive
from tests.training.variational.test_processes import WORDS, largest_difference, summary_of

SEVERAL = {"rs": [1.8, 2.2]}


def measured(keys: dict[str, Any], seed: int = 42, trainer: dict[str, Any] | None = None, **steps: Any) -> TestResult:
    module, datamodule = build_run(keys, {"proton_sampling": "direct"}, seed=seed, **steps)
    quiet_trainer(1, **(trainer or {})).test(module, datamodule, verbose=False)
    assert module.result is not None
    return module.result


def how(result: TestResult) -> tuple[str, int]:
    assert result.measurement is not None
    return result.measurement.ended_by, result.measurement.steps


def test_it_measures_until_all_states_have_the_error() -> None:
    whole = measured(SEVERAL, test_steps=60)
    assert how(whole) == ("test_steps", 60)
    wanted = 1.5 * max(state.estimates["free_energy_per_atom"].error for state in whole.states)
    found = measured(SEVERAL, test_steps=5, target_error=wanted, max_test_steps=400)
    ended_by, steps = how(found)
    assert ended_by == "target_error"
    assert 5 < steps < 400
    assert {state.steps_key for state in found.states} == {"datamodule.test_steps"}, "what to raise for more steps"
    assert all(state.estimates["free_energy_per_atom"].error <= wanted for state in found.states)
    content = found.as_dict()["measurement"]
    assert content == {
        "seed": 42,
        "training_seed": 42,
        "steps": steps,
        "ended_by": "target_error",
        "target_error": {"free_energy_per_atom": wanted},
    }


@pytest.mark.parametrize("term", ["energy_per_atom", "entropy_per_atom", "pressure_gpa"])
def test_other_terms_have_errors_to_reach(term: str) -> None:
    whole = measured({}, test_steps=40).states[0].estimates[term].error
    found = measured({}, test_steps=5, target_error={term: 1.5 * whole, "free_energy_per_atom": 10.0})
    assert how(found)[0] == "target_error"
    assert found.states[0].estimates[term].error <= 1.5 * whole


def test_steps_or_time_end_it_first() -> None:
    found = measured({}, test_steps=5, target_error=1e-9, max_test_steps=12)
    assert how(found) == ("max_test_steps", 12)
    assert found.states[0].steps_key == "datamodule.max_test_steps"
    for wanted in ({}, {"target_error": 1e-9}):
        assert how(measured({}, test_steps=50, trainer={"max_time": {"seconds": 0}}, **wanted)) == ("max_time", 1)


def test_an_error_below_that_of_ln_z_is_refused() -> None:
    module, datamodule = build_run({}, target_error=0.0005)
    (point,), density = module.state.strata.points, module.state.proton_density
    assert density is not None
    density.base = BoltzmannBase(point.cell(2), YukawaPotential(), point.temperature_kelvin, 12.3, 0.5)
    with pytest.raises(SettingError, match=r"target_error = 0.0005 cannot be reached: the error of ln Z of the base"):
        quiet_trainer(1).test(module, datamodule, verbose=False)


def test_bad_targets_are_one_clear_line() -> None:
    assert wanted_errors(None) == {}
    assert wanted_errors(0.001) == {"free_energy_per_atom": 0.001}
    for target, message in [
        (0.0, "target_error = 0.0 must be positive"),
        (math.nan, "must be positive"),
        (True, "must be positive"),
        ({}, "names no term"),
        ({"energy": 0.1}, "energy is no term of it"),
        ({"pressure_gpa": "small"}, "must be positive"),
    ]:
        with pytest.raises(SettingError, match=message) as caught:
            wanted_errors(target)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
    with pytest.raises(SettingError, match=r"max_test_steps = 5 is below datamodule.test_steps = 8"):
        build_run({}, target_error=0.1, max_test_steps=5)


def error_of(series: np.ndarray) -> float:
    """Of the mean, by the scatter of the chains."""
    return float(series.mean(axis=0).std(ddof=1)) / math.sqrt(series.shape[1])


def test_an_error_that_ends_a_measurement_covers_the_truth() -> None:
    """To stop where the error is small by chance would make it too small."""
    pulls, trainer = [], SimpleNamespace(strategy=SimpleNamespace(broadcast=lambda value: value), callbacks=[])
    for seed in range(300):
        series = autoregressive(np.random.default_rng(seed), 600, 32, 0.5)
        ending = Ending({"free_energy_per_atom": 0.02}, 20)

        def look(steps: int, series: np.ndarray = series) -> Any:
            found = [({"free_energy_per_atom": SimpleNamespace(error=error_of(series[:steps]))}, {})]
            return SimpleNamespace(num_steps=steps, estimates=lambda: found)

        steps = next(n for n in range(1, 601) if ending.look(look(n), trainer) or ending.ended_by)  # type: ignore[arg-type]
        error = error_of(series[:steps])
        assert 0.01 < error <= 0.02
        pulls.append(abs(series[:steps].mean()) / error)
    one, two = np.mean(np.array(pulls) < 1), np.mean(np.array(pulls) < 2)
    # counting errors of 300 repeats: 2.7 and 1.2 %
    assert 0.60 < one < 0.80
    assert 0.918 < two < 0.995


def test_the_progress_bar_shows_the_error() -> None:
    module, datamodule = build_run({}, target_error=1e-6, test_steps=5, max_test_steps=8)
    bar, seen = ProgressBar(), []
    bar.line.show = lambda *state: seen.append(state)  # type: ignore[assignment, method-assign]
    trainer = quiet_trainer(1)
    trainer.callbacks.append(bar)  # type: ignore[attr-defined]
    trainer.test(module, datamodule, verbose=False)
    assert [state[:3] for state in seen[:3]] == [("equilibrate", number, 2) for number in range(3)]
    seen = seen[3:]
    # the estimate of the time comes with the first one, before the first step
    assert [state[:3] for state in seen] == [("test", number, 8) for number in range(9)]
    assert [next(iter(state[3])) for state in (seen[1], seen[-1])] == ["F", "error of F"]
    assert seen[-1][3]["error of F"].endswith("(target 1e-06)")
    assert list(seen[-1][3])[1:6] == ["F", "S", "P", "acc_p", "acc_e"]


def test_a_seed_repeats_a_measurement_bit_for_bit(tmp_path: Path) -> None:
    """Of a checkpoint: a seed of its own begins other random numbers, that of the checkpoint goes on."""
    module, datamodule = build_run({}, seed=42)
    trainer = quiet_trainer(1)
    trainer.fit(module, datamodule)
    file = tmp_path / "run.ckpt"
    trainer.save_checkpoint(file)
    values = []
    for seed in (42, 7, 7, 8):
        module, datamodule = build_run({}, seed=seed)
        quiet_trainer(1).test(module, datamodule, ckpt_path=str(file), weights_only=True, verbose=False)
        assert module.result is not None
        content = module.result.as_dict()
        assert content["measurement"]["seed"] == seed
        assert content["measurement"]["training_seed"] == 42
        values.append({key: value for key, value in content.items() if key != "measurement"})
    assert values[1] == values[2]
    energies = [value["energy_per_atom"]["value"] for value in values]
    assert len(set(energies)) == 3


def test_a_resumed_training_keeps_its_random_numbers(tmp_path: Path) -> None:
    module, datamodule = build_run({}, seed=42)
    trainer = quiet_trainer(1)
    trainer.fit(module, datamodule)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    module, datamodule = build_run({}, seed=7)
    quiet_trainer(2).fit(module, datamodule, ckpt_path=str(tmp_path / "run.ckpt"), weights_only=True)
    assert module.state.place().random.seed == 42


def test_two_processes_end_after_the_same_step_as_one(tmp_path: Path) -> None:
    """With other random numbers, which are no chains of the checkpoint that go on."""
    words = [*WORDS[:3], "sampler.chain_precision=float64", "system.rs=[1.8,2.2]", "trainer.max_steps=1"]
    run_ranks(["fit", *words, f"run_dir={tmp_path / 'fit'}"], 1, tmp_path / "start")
    checkpoint = f"ckpt_path={tmp_path / 'fit' / 'checkpoints' / 'last.ckpt'}"
    found = {}
    for name, ranks, more in (
        ("one", 1, ["seed=7"]),
        ("two", 2, ["seed=7"]),
        ("run", 1, []),
    ):
        target = ["target_error={free_energy_per_atom:0.05}", "datamodule.test_steps=2", *more]
        run_ranks(["test", checkpoint, f"run_dir={tmp_path / name}", *target], ranks, tmp_path / f"{name}-log")
        found[name] = summary_of(tmp_path / name)
    assert found["one"]["measurement"]["ended_by"] == "target_error"
    assert found["one"]["measurement"]["seed"] == 7
    assert found["run"]["measurement"]["seed"] == 42
    assert largest_difference(found["one"], found["two"]) < 1e-10
    energies = [found[name]["states"][0]["energy_per_atom"]["value"] for name in ("one", "run")]
    assert energies[0] != energies[1]
