"""Boundary conditions of labels, from the settings of their calculators."""

from typing import Any

import pytest
import torch

from lightning_vfe.labels.boundary import label_twists, twists_name
from lightning_vfe.physics.twists import twist_grid


@pytest.mark.parametrize(
    ("calculator", "fractions"),
    [
        ({"kpts": [1, 1, 1]}, [[0.0, 0.0, 0.0]]),
        ({"kpts": [1, 1, 1], "koffset": [1, 1, 1]}, [[0.5, 0.5, 0.5]]),
        ({"kpts": [2, 1, 1], "koffset": [0, 0, 0]}, [[0.0, 0.0, 0.0], [0.5, 0.0, 0.0]]),
        ({"kpts": [2, 1, 1], "koffset": [1, 0, 0]}, [[-0.25, 0.0, 0.0]]),
        ({"kpts": [3, 1, 1]}, [[-1 / 3, 0.0, 0.0], [0.0, 0.0, 0.0]]),
        ({"twists": [2, 1, 1]}, [[-0.25, 0.0, 0.0]]),
        ({"twists": [2, 1, 1], "twist_shift": [0.5, 0, 0]}, [[0.0, 0.0, 0.0], [0.5, 0.0, 0.0]]),
        ({"twists": "baldereschi"}, [[0.25, 0.25, 0.25]]),
    ],
)
def test_k_points_are_twists(calculator: dict[str, Any], fractions: list[list[float]]) -> None:
    """A grid of k-points begins at Gamma, or half a spacing beside it; one of f and -f is kept."""
    found = label_twists(calculator)
    assert found is not None
    torch.testing.assert_close(found.fractions, torch.tensor(fractions, dtype=torch.float64))


def test_a_calculator_without_k_points_does_not_tell() -> None:
    assert label_twists({"_target_": "ase.calculators.lj.LennardJones"}) is None


@pytest.mark.parametrize(
    ("twists", "symmetry", "name"),
    [
        ([1, 1, 1], "none", "Gamma"),
        ([2, 2, 2], "time_reversal", "8 twists without Gamma"),
        ([3, 1, 1], "time_reversal", "3 twists with Gamma"),
        ("baldereschi", "none", "the twist (0.25, 0.25, 0.25)"),
        ("random", "none", "random twists"),
    ],
)
def test_names(twists: Any, symmetry: Any, name: str) -> None:
    assert twists_name(twist_grid(twists, symmetry)) == name
