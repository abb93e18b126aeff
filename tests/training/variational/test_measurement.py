"""What a step logs and what `test` reports of several state points, against objects that see one of them alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from lightning_vfe.models.base.boltzmann import BoltzmannBase
from lightning_vfe.models.potential.yukawa import YukawaPotential
from lightning_vfe.physics.static_structure import KINDS
from lightning_vfe.state.batch import Batch
from lightning_vfe.state.variational_state import VariationalState
from lightning_vfe.training.variational.callbacks import recent_estimates
from lightning_vfe.training.variational.measurement import Measurement
from lightning_vfe.training.variational.step_values import step_values
from lightning_vfe.training.variational.system_entry import system_entry
from tests.helpers.trainers import quiet_trainer
from tests.helpers.variational import build_run, build_state

TWISTS = [[0.0, 0.0, 0.0, 1.0], [0.25, 0.1, -0.3, 3.0]]
SAMPLED = {"states": [[1.8, 5000.0], [1.8, 9000.0], [2.3, 9000.0]], "twists": TWISTS}
FIXED = {"rs": [1.8, 2.3], "protons": "fixed", "twists": TWISTS}


def alone(state: VariationalState, number: int) -> VariationalState:
    """The same networks at one of the state points."""
    point = state.strata.points[number]
    keys: dict[str, Any] = {"rs": point.rs, "temperature_kelvin": point.temperature_kelvin, "twists": TWISTS}
    own = build_state(keys | ({"protons": "fixed"} if state.is_fixed else {}))
    own.wavefunction, own.proton_density = state.wavefunction, state.proton_density
    return own


def part(state: VariationalState, batch: Batch, number: int) -> Batch:
    own = state.strata.state_index(batch.stratum) == number
    stratum = batch.stratum[own] % len(TWISTS)
    return Batch(batch.protons[own], batch.electrons[own], batch.states[own], stratum, batch.report)


@pytest.mark.parametrize("keys", [SAMPLED, FIXED], ids=["sampled", "fixed"])
def test_each_state_has_the_values_of_a_measurement_of_its_own(keys: dict[str, Any]) -> None:
    """Terms with errors, diagnostics, g(r) with its distances in bohr, and the values of single steps."""
    state = build_state(keys, trained=True, num_proton_walkers=24)
    singles = [alone(state, number) for number in range(state.strata.num_states)]
    together, each = Measurement(state), [Measurement(single) for single in singles]
    for measurement in (together, *each):
        measurement.reset()
    for _ in range(5):
        batch = state.batch()
        together.add(batch, state.energies(batch))
        logged = step_values(state, batch, state.energies(batch))
        for number, (single, measurement) in enumerate(zip(singles, each, strict=True)):
            walkers = part(state, batch, number)
            measurement.add(walkers, single.energies(walkers))
            point = state.strata.points[number]
            label = f"rs{point.rs}" + (f"_T{point.temperature_kelvin:.0f}" if point.kT else "")
            expected = step_values(single, walkers, single.energies(walkers))
            assert "free_energy_per_atom_error" in expected
            assert "local_energy_variance" in expected
            for name, value in expected.items():
                found = logged.pop(f"{name}@{label}")
                assert float(found) == pytest.approx(float(value), rel=1e-9, abs=1e-12), (name, label)
        assert not logged, f"columns that no state point has: {list(logged)}"

    result = together.result(7)
    assert [found.point for found in result.states] == list(state.strata.points)
    assert result.step == 7
    for found, measurement in zip(result.states, each, strict=True):
        expected = measurement.result(7)
        (only,) = expected.states
        assert found.point == only.point
        assert found.reasons == only.reasons
        assert set(found.estimates) == set(only.estimates)
        for name, value in only.estimates.items():
            assert found.estimates[name] == pytest.approx(value, rel=1e-8, abs=1e-12), name
        assert found.diagnostics == pytest.approx(only.diagnostics, rel=1e-8)
        assert result.diagnostics == pytest.approx(expected.diagnostics)
        assert set(found.radial) == set(only.radial) >= {"proton_proton", "proton_electron"}
        for name, pairs in only.radial.items():
            for array in ("r", "g", "error"):
                np.testing.assert_allclose(getattr(found.radial[name], array), getattr(pairs, array), rtol=1e-10)
        assert set(found.structure) == set(only.structure) == set(KINDS)
        for name, factor in only.structure.items():
            for array in ("k", "s", "error"):
                np.testing.assert_allclose(getattr(found.structure[name], array), getattr(factor, array), rtol=1e-8)
        for name, correction in only.finite_size.items():
            assert found.finite_size[name].value == pytest.approx(correction.value, rel=1e-8), name
        length = found.point.cell(2).length
        assert length / 2 - length / 50 < found.radial["proton_proton"].r[-1] < length


def test_the_system_of_a_result_names_its_states() -> None:
    several = system_entry(build_state(SAMPLED, num_proton_walkers=24))
    assert several == {"num_atoms": 2, "nucleus": "H", "protons": "sampled", "states": SAMPLED["states"]}
    fixed = system_entry(build_state(FIXED))
    assert fixed == {"num_atoms": 2, "nucleus": "H", "protons": "fixed", "states": [[1.8, 0.0], [2.3, 0.0]]}
    one = {"num_atoms": 2, "nucleus": "H", "protons": "sampled", "rs": 2.0, "temperature_kelvin": 6000.0}
    assert system_entry(build_state()) == one
    assert system_entry(build_state({"protons": "fixed"})) == {
        "num_atoms": 2,
        "nucleus": "H",
        "protons": "fixed",
        "rs": 2.0,
    }


def test_the_error_of_ln_z_is_in_the_result() -> None:
    """It is the same for all samples, so that no scatter of theirs shows it."""
    results = []
    for error in (0.0, 0.5):
        state = build_state()
        (point,), density = state.strata.points, state.proton_density
        assert density is not None
        density.base = BoltzmannBase(point.cell(2), YukawaPotential(), point.temperature_kelvin, 12.3, error)
        measurement = Measurement(state)
        measurement.reset()
        for _ in range(4):
            batch = state.batch()
            measurement.add(batch, state.energies(batch))
        results.append(measurement.result(0).states[0])
    exact, noisy = (result.estimates for result in results)
    added = 0.5 * results[0].point.kT / 2
    for name, extra in (("free_energy", added), ("base_free_energy", added), ("entropy", 0.5 / 2), ("energy", 0.0)):
        before, after = exact[f"{name}_per_atom"], noisy[f"{name}_per_atom"]
        assert after.value == before.value, name
        assert after.error == pytest.approx(math.hypot(before.error, extra)), name


def test_the_progress_bar_shows_the_free_energy_of_three_states() -> None:
    module, datamodule = build_run(SAMPLED | {"states": [*SAMPLED["states"], [2.4, 9000.0]]}, num_proton_walkers=32)
    quiet_trainer(4).fit(module, datamodule)
    shown = recent_estimates(module)
    assert list(shown) == ["F(1.8,5000)", "F(1.8,9000)", "F(2.3,9000)"]
    series = torch.stack([terms[0] for terms in module.recent])  # WATCHED begins with F
    stratum = module.state.current().stratum
    for number, text in enumerate(shown.values()):
        own = stratum // 2 == number
        weight = torch.tensor([0.25, 0.75])[stratum[own] % 2]
        value, error = map(float, text.split("+-"))
        assert value == pytest.approx(float((series[:, own] @ weight).mean() / weight.sum()), abs=1e-4)
        assert error > 0
