"""Comparison of carried derivatives with those of reverse-mode differentiation."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lightning_vfe.forward_laplacian import LaplacianTensor
from tests.helpers.derivatives import jacobian_and_laplacian

NUM = 3
"""Electrons of a configuration."""
TOLERANCE = 1e-11


def draw(*shape: int, seed: int = 1) -> Tensor:
    """Normal random numbers of their own seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def compare(result: LaplacianTensor, value: Tensor, jacobian: Tensor, laplacian: Tensor) -> None:
    """All three parts, with the largest error relative to the largest number (or one)."""
    result = result.dense()
    for name, found, expected in (
        ("value", result.value, value),
        ("jacobian", result.jacobian, jacobian),
        ("laplacian", result.laplacian, laplacian),
    ):
        assert found.shape == expected.shape, f"{name}: {tuple(found.shape)}, not {tuple(expected.shape)}"
        scale = max(1.0, expected.abs().max().item())
        error = (found - expected).abs().max().item() / scale
        assert error < TOLERANCE, f"{name}: largest error {error:.1e}"


def check(function: Callable[[Any], Any], batched: bool = True) -> None:
    """A function of carried and of plain positions: one configuration, and two at once, of NUM electrons."""
    positions = draw(2, NUM, 3)
    references = [(function(r), *jacobian_and_laplacian(function, r)) for r in positions]
    with torch.no_grad():
        compare(function(LaplacianTensor.seed(positions[0])), *references[0])
        if batched:
            values, jacobians, laplacians = zip(*references, strict=True)
            stacked = torch.stack(values), torch.stack(jacobians, dim=1), torch.stack(laplacians)
            compare(function(LaplacianTensor.seed(positions)), *stacked)
