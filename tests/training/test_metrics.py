"""Errors that no scatter of the samples shows."""

import math

import pytest

from lightning_vfe.physics.statistics import Estimate
from lightning_vfe.training.metrics import with_base_error


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
