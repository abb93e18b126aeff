"""How the kernels are cut into programs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

LEAST_WALKERS = 8
"""Walkers of a tile at least: what a GPU reads at once."""
LEAST_ROWS = 16
"""Of a product of matrices in a kernel."""
WARPS, MOST_WARPS = 8, 16
"""Of a program, and of one with tiles that are larger than asked for: more leave too few registers to a thread."""
STAGES = 2
"""Of the loads that run ahead; each takes shared memory."""


def launch(
    kernel: Any, tensors: tuple[Tensor, ...], num: int, num_walkers: int, blocks: int, columns: int, **constants: Any
) -> None:
    """Run a kernel on all blocks of particles and all tiles of walkers.

    Args:
        kernel: of Triton; takes the tensors, N, n, w, and the constants of its code.
        tensors: contiguous.
        num: N.
        num_walkers: w.
        blocks: of particles.
        columns: particles times walkers of a tile, where that is possible.
        constants: of the code.
    """
    half = num // 2
    particles = power_of_two(half)
    tile = max(LEAST_WALKERS, columns // particles)
    warps = min(MOST_WARPS, WARPS * particles * tile // columns)
    constants |= {"SENDERS": particles, "TILE": tile, "num_warps": warps, "num_stages": STAGES}
    with torch.cuda.device_of(tensors[0]):  # Triton takes the current one
        kernel[(-(-num_walkers // tile), blocks)](*tensors, num, half, num_walkers, **constants)


def power_of_two(number: int) -> int:
    """The least power of two that is not smaller."""
    return 1 << (number - 1).bit_length()
