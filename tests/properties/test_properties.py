"""Properties that hold for all inputs, with inputs that hypothesis draws; few examples, always the same ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from lightning_vfe.errors import CommandError
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.ewald import Ewald
from lightning_vfe.physics.statistics import estimate
from lightning_vfe.sampling.proposals import GaussianProposal, LangevinProposal
from lightning_vfe.workflows.overrides import parse

EPSILON = float(np.finfo(np.float64).eps)


def few(count: int) -> Callable[[Any], Any]:
    return settings(max_examples=count, deadline=None, derandomize=True, database=None)


def points(count: int, largest: float = 1.0) -> st.SearchStrategy[Tensor]:
    """Positions in units of the edge.  # (count, 3)"""
    numbers = st.floats(-largest, largest, width=32)
    return arrays.arrays(np.float64, (count, 3), elements=numbers).map(torch.from_numpy)


CELLS = st.builds(PeriodicCell, st.integers(1, 64), st.floats(0.5, 10.0))
VECTORS = st.lists(st.integers(-5, 5), min_size=3, max_size=3).map(lambda n: torch.tensor(n, dtype=torch.float64))
SMALL_CELLS = st.builds(PeriodicCell, st.just(2), st.floats(0.8, 4.0))


# --- cell ---------------------------------------------------------------------------------------------------------


@few(100)
@given(CELLS, points(4, 1e6))
def test_wrapped_positions_lie_in_the_cell_and_are_the_same_point(cell: PeriodicCell, place: Tensor) -> None:
    positions = place * cell.length
    wrapped = cell.wrap(positions)
    assert bool((wrapped >= 0).all())
    assert bool((wrapped < cell.length).all())
    turns = (positions - wrapped) / cell.length
    assert bool(((turns - turns.round()).abs() <= 4 * EPSILON * (1 + turns.abs())).all())
    assert torch.equal(cell.wrap(wrapped), wrapped)


@few(50)
@given(CELLS, points(4, 3.0))
def test_no_image_is_nearer_than_the_minimum_image(cell: PeriodicCell, place: Tensor) -> None:
    nearest = cell.minimum_image(place * cell.length)
    shifts = torch.cartesian_prod(*[torch.arange(-1.0, 2.0, dtype=torch.float64)] * 3) * cell.length
    distances = (nearest[:, None] + shifts).norm(dim=-1)
    assert bool((nearest.norm(dim=-1) <= distances.amin(1) * (1 + 8 * EPSILON) + 1e-300).all())
    assert bool((cell.minimum_image(-place * cell.length).norm(dim=-1) - nearest.norm(dim=-1)).abs().le(1e-9).all())


# --- Ewald --------------------------------------------------------------------------------------------------------


def separated(place: Tensor) -> bool:
    """No two of the points so near that rounding decides about 1/r."""
    offsets = (place[:, None] - place[None]).round(decimals=12)
    return bool(((offsets - offsets.round()).norm(dim=-1) + torch.eye(len(place))).min() > 0.05)


@few(25)
@given(SMALL_CELLS, points(4).filter(separated), points(1), VECTORS)
def test_coulomb_energies_know_no_origin_and_no_image(
    cell: PeriodicCell, place: Tensor, shift: Tensor, vector: Tensor
) -> None:
    ewald, moved = Ewald(cell), place + shift
    moved[0] += vector
    moved[3] -= vector
    first, second = (ewald.energies(each[:2] * cell.length, each[2:] * cell.length) for each in (place, moved))
    for one, other in zip(first, second, strict=True):
        assert math.isclose(float(one), float(other), rel_tol=1e-9, abs_tol=1e-9)


@few(10)
@given(points(4).filter(separated), st.floats(1.1, 3.0))
def test_coulomb_energies_are_inverse_lengths(place: Tensor, factor: float) -> None:
    cells = PeriodicCell(2, 1.5), PeriodicCell(2, 1.5 * factor)
    first, second = (Ewald(cell).energies(place[:2] * cell.length, place[2:] * cell.length) for cell in cells)
    for one, other in zip(first, second, strict=True):
        assert math.isclose(float(one), factor * float(other), rel_tol=1e-7, abs_tol=1e-7)


# --- statistics ---------------------------------------------------------------------------------------------------

SERIES = arrays.arrays(np.float64, (24, 4), elements=st.floats(-1e3, 1e3, width=32))


@few(25)
@given(SERIES, st.floats(-100.0, 100.0), st.floats(0.01, 100.0), st.permutations(range(4)))
def test_errors_know_no_origin_no_unit_and_no_order_of_the_chains(
    series: np.ndarray, shift: float, factor: float, order: list[int]
) -> None:
    series = series + np.random.default_rng(0).standard_normal(series.shape)  # a constant series has no correlation
    one, other = estimate(series), estimate(factor * series[:, order] + shift)
    scale = factor * (1 + np.abs(series).max()) + abs(shift)
    assert math.isclose(factor * one.value + shift, other.value, abs_tol=1e-9 * scale)
    assert math.isclose(factor * one.error, other.error, rel_tol=1e-6, abs_tol=1e-9 * scale)
    assert one.error >= 0
    assert 1 <= one.effective_sample_size <= series.size * (1 + 1e-9)
    assert math.isclose(one.r_hat, other.r_hat, rel_tol=1e-6)


@few(10)
@given(st.integers(0, 2**31), st.integers(2, 5))
def test_values_that_are_repeated_are_no_new_samples(seed: int, repeats: int) -> None:
    """As from chains that stand still: the error over chains does not shrink, and the samples do not grow."""
    series = np.random.default_rng(seed).standard_normal((60, 8))
    one, other = estimate(series), estimate(np.repeat(series, repeats, axis=0))
    assert other.error > 0.7 * one.error
    assert other.effective_sample_size < 1.8 * one.effective_sample_size


# --- samplers -----------------------------------------------------------------------------------------------------


def quartic(positions: Tensor) -> Tensor:
    """ln p of a toy with steep walls, up to a constant."""
    return -(positions**4 / 4 + 0.3 * positions).sum((-1, -2))


@few(50)
@given(points(2, 3.0), points(2, 3.0), st.floats(0.05, 1.5), st.floats(0.1, 10.0), st.booleans())
def test_moves_balance_in_detail(start: Tensor, noise: Tensor, width: float, bound: float, drifts: bool) -> None:
    """The correction is ln q(x|y) - ln q(y|x), with the noise that leads back found by moves without noise."""
    rule = LangevinProposal(bound) if drifts else GaussianProposal()
    size = torch.tensor(width, dtype=torch.float64)
    there, correction = rule(quartic, rule.evaluate(quartic, start), size, noise)
    calm, _ = rule(quartic, rule.evaluate(quartic, there.positions), size, torch.zeros_like(noise))
    back = (start - calm.positions) / size
    expected = 0.5 * (noise.square() - back.square()).sum()
    found = torch.zeros(()) if correction is None else correction
    assert math.isclose(float(found), float(expected), rel_tol=1e-9, abs_tol=1e-9 * (1 + float(back.square().sum())))


# --- words of the command line ------------------------------------------------------------------------------------


@few(150)
@given(st.text(max_size=20), st.sampled_from(("system.rs", "run_dir", "base", "seed", "potential.path", "")))
def test_a_word_is_read_or_refused_in_one_line(text: str, key: str) -> None:
    word = f"{key}={text}" if key else text
    with suppress(CommandError):
        parse([word])
        return
    with pytest.raises(CommandError) as refused:
        parse([word])
    assert len(str(refused.value).splitlines()) == 1


@few(100)
@given(st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20))
def test_names_of_folders_come_back_as_they_are(name: str) -> None:
    """Whatever characters they have, but for those that the shell or references to other keys take."""
    if "${" in name or name.startswith(("~", "'", '"')) or name == "null" or name.endswith("/") or "/" in name:
        return
    assert parse([f"run_dir={name}"]).value("run_dir") == name
