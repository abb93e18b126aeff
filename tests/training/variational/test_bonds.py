"""Chains that keep their bonds, or their start, are told from those that forget them."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_vfe.physics.strata import Strata
from lightning_vfe.training.variational.bonds import Bonds, bonds_of_states
from lightning_vfe.training.variational.diagnostics import diagnostics_with_limits
from tests.helpers.variational import build_run
from tests.training.variational.test_module import trainer

STEPS, WALKERS = 200, 16
START = torch.arange(WALKERS) % 2  # molecules and atoms in turn
KEY = "datamodule.test_steps"


def chains(centres: Tensor, memory: float = 0.5, spread: float = 0.1) -> Tensor:
    """Chains around centres of their own, with exponential correlations.  # (steps, W)"""
    torch.manual_seed(3)
    noise, values = torch.randn(STEPS, WALKERS), [torch.randn(WALKERS)]
    for each in noise[1:]:
        values.append(memory * values[-1] + math.sqrt(1 - memory**2) * each)
    return centres + spread * torch.stack(values)


def found(series: Tensor, start: Tensor | None = START, rs: float = 4.0) -> Bonds | None:
    strata = Strata.of(rs=rs, temperature_kelvin=5000.0)
    stratum = torch.zeros(WALKERS, dtype=torch.int64)
    (bonds,) = bonds_of_states(strata, series, stratum, start, [20], lambda rows: rows)
    return bonds


def test_chains_that_keep_their_start_are_found() -> None:
    bonds = found(chains(0.8 - 0.5 * START))
    assert bonds is not None
    first, second = bonds.by_start.values()
    assert abs(first.value - 0.8) < 4 * first.error < 0.1
    assert abs(second.value - 0.3) < 4 * second.error < 0.1
    (reason,) = bonds.reasons(KEY, is_direct=True)
    assert re.match(r"the molecular fraction of walkers .* is 0\.\d+\(\d+\), of the others 0\.3\d*\(\d+\): ", reason)
    assert (
        f"chains keep their start; raise sampler.num_proton_steps, datamodule.equilibration_steps and {KEY}" in reason
    )
    assert reason.endswith("or temper the base with sampler.tempering=[1.0,1.5,2.2]")
    assert "tempering" not in bonds.reasons(KEY, is_direct=False)[0]
    words = {row.name: row.word for row in diagnostics_with_limits(bonds.diagnostics(), True, STEPS)}
    assert words == {"molecular_r_hat": "look", "start_difference": "look", "start_difference_error": ""}


def test_chains_that_forget_their_start_pass() -> None:
    bonds = found(chains(torch.full((WALKERS,), 0.6)))
    assert bonds is not None
    assert bonds.reasons(KEY, True) == []
    assert set(bonds.as_dict()["molecular_fraction_by_start"]) == {"molecular", "random"}
    words = {row.name: row.word for row in diagnostics_with_limits(bonds.diagnostics(), True, STEPS)}
    assert words["molecular_r_hat"] == words["start_difference"] == "ok"


def test_chains_of_one_start_that_keep_their_bonds_are_found() -> None:
    torch.manual_seed(4)
    bonds = found(chains(0.8 - 0.3 * torch.rand(WALKERS)), start=None)
    assert bonds is not None
    (reason,) = bonds.reasons(KEY, True)
    assert reason.startswith("R-hat of the molecular fraction = ")
    assert "chains keep their bonds" in reason
    assert bonds.as_dict() == {}


@pytest.mark.parametrize(
    ("rs", "fraction", "has_molecules"),
    [(1.25, 0.8, False), (2.0, 0.3, False), (2.0, 0.55, True), (4.0, 0.05, False), (4.0, 0.2, True)],
)
def test_pairs_by_chance_are_no_molecules(rs: float, fraction: float, has_molecules: bool) -> None:
    """Of independent points, 42 % are pairs at rs = 2, and 8 % at rs = 4. At rs = 1.25 all neighbours are close."""
    assert (found(chains(torch.full((WALKERS,), fraction)), None, rs) is not None) == has_molecules


def test_a_measurement_compares_the_starts() -> None:
    keys: dict[str, Any] = {"rs": 4.0, "temperature_kelvin": 5000.0}
    moves = {"initial_proton_width": 1e-4, "num_proton_steps": 1, "num_electron_steps": 1}
    module, datamodule = build_run(keys, moves, num_atoms=4, structure="mixed", equilibration_steps=1, test_steps=8)
    trainer(1).test(module, datamodule, verbose=False)
    assert module.result is not None
    content = module.result.as_dict()
    assert content["molecular_fraction_by_start"]["molecular"]["value"] == 1.0
    assert content["molecular_fraction_by_start"]["random"]["value"] == 0.0
    assert content["diagnostics"]["start_difference"] == 1.0
    assert content["reasons"][0].startswith("the molecular fraction of walkers that started as molecules is 1, of")
