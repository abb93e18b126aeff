"""Values with errors at each state point, and errors that no scatter of the samples shows."""

import math

import pytest
import torch

from lightning_vfe.physics.statistics import Estimate, estimate
from lightning_vfe.physics.strata import Strata
from lightning_vfe.training.variational.error_budget import error_budget
from lightning_vfe.training.variational.metrics import FreeEnergyMetric, of_reached_protons, with_base_error

TWISTS = [[0.0, 0.0, 0.0, 1.0], [0.25, 0.1, -0.3, 3.0]]
STATES = [[1.2, 4000.0], [1.2, 6000.0], [1.4, 6000.0]]


def fill(metric: FreeEnergyMetric, steps: list[dict[str, torch.Tensor]], stratum: torch.Tensor, own: torch.Tensor):
    """Steps of the walkers `own`, each with two electron walkers for the terms."""
    for step in steps:
        terms = {name: step[name][own].flatten() for name in ("energy_per_atom", "free_energy_per_atom")}
        numbers = {"local_energy_variance": step["variance"][own]}
        common = {"electron_drift": step["drift"], "electron_acceptance": step["drift"] + 1.0}
        metric.update(terms, stratum.repeat_interleave(2), numbers, stratum, common)
    return metric


def random_steps(num_walkers: int, count: int = 12) -> list[dict[str, torch.Tensor]]:
    return [
        {
            "energy_per_atom": torch.randn(num_walkers, 2),
            "free_energy_per_atom": torch.randn(num_walkers, 2),
            "variance": torch.rand(num_walkers),
            "drift": torch.randn(()),
        }
        for _ in range(count)
    ]


def test_each_state_has_the_values_of_a_metric_of_its_own():
    """Walkers of three states and two weighted twists in mixed order."""
    strata = Strata.of(states=STATES, twists=TWISTS)
    stratum = torch.arange(24) % 6
    stratum = stratum[torch.randperm(24)]
    steps = random_steps(24)
    mixed = fill(FreeEnergyMetric(strata), steps, stratum, torch.arange(24))
    values, numbers = mixed.compute(), mixed.state_diagnostics(lambda rows: rows)
    assert len(values) == len(numbers) == 3
    for state, (rs, kelvin) in enumerate(STATES):
        own = (stratum // 2 == state).nonzero().squeeze(1)
        single = FreeEnergyMetric(Strata.of(rs, kelvin, twists=TWISTS))
        fill(single, steps, stratum[own] % 2, own)
        assert values[state] == single.compute()[0]
        assert numbers[state] == pytest.approx(single.state_diagnostics(lambda rows: rows)[0], rel=1e-12)
        assert mixed.common_diagnostics() == single.common_diagnostics()
        # and these are weighted means
        weight = torch.tensor([0.25, 0.75])[stratum[own] % 2] / 4
        for name, found in values[state].items():
            series = torch.stack([step[name][own].mean(1) for step in steps])
            assert found.value == pytest.approx(float((series @ weight).mean()), rel=1e-12)
        variance = torch.stack([step["variance"][own] for step in steps])
        assert numbers[state]["local_energy_variance"] == pytest.approx(float((variance @ weight).mean()), rel=1e-12)


def test_one_state_and_twist_is_the_plain_estimate():
    """As ever: no weights, all walkers in one stratum, and numbers of each step averaged over the steps."""
    stratum, steps = torch.zeros(6, dtype=torch.int64), random_steps(6)
    metric = fill(FreeEnergyMetric(Strata.of(1.25, 6000.0)), steps, stratum, torch.arange(6))
    (found,), (numbers,) = metric.compute(), metric.state_diagnostics(lambda rows: rows)
    series = torch.stack([step["energy_per_atom"].flatten() for step in steps])
    assert found["energy_per_atom"] == estimate(series)
    expected = torch.stack([step["variance"].mean() for step in steps]).mean()
    assert numbers["local_energy_variance"] == pytest.approx(float(expected), rel=1e-12)
    drifts = torch.stack([step["drift"] for step in steps])
    common = metric.common_diagnostics()
    assert common["electron_drift"] == pytest.approx(float(drifts.mean()))
    assert common["electron_acceptance"] == pytest.approx(1.0 + common["electron_drift"])
    assert common["electron_drift_error"] == estimate(drifts.unsqueeze(1)).error
    metric.reset()
    fill(metric, steps[:3], stratum, torch.arange(6))
    assert metric.series()["energy_per_atom"].shape == (3, 12)


def test_the_start_of_the_slowest_term_is_left_out_of_all_terms_of_its_state():
    strata = Strata.of(states=STATES[:2])
    stratum, steps = torch.arange(16) % 2, random_steps(16, 64)
    first = (stratum == 0)[:, None]
    for step in steps[:10]:
        step["energy_per_atom"] = step["energy_per_atom"] + 9.0 * first
    metric = fill(FreeEnergyMetric(strata), steps, stratum, torch.arange(16))
    drifting, equilibrated = metric.compute()
    start, zero = metric.unequilibrated
    assert 10 <= start <= 16
    assert zero == 0
    for state, found, left_out in ((0, drifting, start), (1, equilibrated, 0)):
        for name, value in found.items():
            series = torch.stack([step[name][stratum == state].flatten() for step in steps[left_out:]])
            assert value.value == pytest.approx(float(series.mean()), rel=1e-12), (state, name)


def test_the_budget_adds_up_to_the_error():
    names = ("free_energy_per_atom", "energy_per_atom", "entropy_per_atom", "pressure_gpa")
    statistical = {name: Estimate(1.0, 0.003, 1.0, 100.0, 1.0) for name in names}
    budget = error_budget(statistical, 0.004, 0.1, 0.02, num_atoms=2)
    whole = of_reached_protons(with_base_error(statistical, 0.004, 0.02), 0.1, 0.02, num_atoms=2)
    for name in names:
        assert math.hypot(*budget[name].values()) == pytest.approx(whole[name].error, rel=1e-12)
    assert budget["energy_per_atom"] == {"statistical": 0.003, "log_z": 0.0, "unreached_fraction": 0.0}
    assert budget["entropy_per_atom"]["unreached_fraction"] == pytest.approx(math.log(10.0 / 9.0) / 2.0)


def test_error_of_ln_z_enters_free_energy_and_entropy():
    names = ("free_energy_per_atom", "energy_per_atom", "entropy_per_atom", "base_free_energy_per_atom")
    before = {name: Estimate(1.0, 0.003, 1.0, 100.0, 1.0) for name in names}
    before["base_free_energy_per_atom"] = Estimate(1.0, 0.0, 1.0, 100.0, 1.0)
    after = with_base_error(before, 0.004, kT=0.02)
    assert after["free_energy_per_atom"].error == pytest.approx(0.005)
    assert after["energy_per_atom"].error == 0.003
    assert after["entropy_per_atom"].error == pytest.approx(math.hypot(0.003, 0.2))
    assert after["base_free_energy_per_atom"].error == 0.004
    assert all(after[name].value == 1.0 for name in names)


def test_exact_base_changes_nothing():
    before = {"free_energy_per_atom": Estimate(1.0, 0.003, 1.0, 100.0, 1.0)}
    assert with_base_error(before, 0.0, kT=0.02) == before


def test_base_protons_that_the_map_does_not_reach_cost_entropy():
    """A tenth of the volume of two atoms less: S falls by ln(10/9) / 2 per atom, F rises by kT times that."""
    names = ("free_energy_per_atom", "energy_per_atom", "entropy_per_atom")
    after = of_reached_protons({name: Estimate(1.0, 0.003, 1.0, 100.0, 1.0) for name in names}, 0.1, 0.02, num_atoms=2)
    shift = math.log(10.0 / 9.0) / 2.0
    assert after["free_energy_per_atom"].value == pytest.approx(1.0 + 0.02 * shift)
    assert after["entropy_per_atom"].value == pytest.approx(1.0 - shift)
    assert after["entropy_per_atom"].error == pytest.approx(math.hypot(0.003, shift))
    assert after["energy_per_atom"] == Estimate(1.0, 0.003, 1.0, 100.0, 1.0)
