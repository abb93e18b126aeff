"""Work in blocks: a bound for the memory of temporaries, and many configurations a part at a time."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable

import torch
from torch import Tensor

# Largest number of elements of a temporary. On a processor 4 MiB of doubles stay near its caches (larger blocks were
# measured to be slower); an accelerator wants few and large operations.
MAX_ELEMENTS_CPU = 2**19
MAX_ELEMENTS_ACCELERATOR = 2**25

# mallopt's numbers of its two thresholds, from glibc's malloc.h, and the largest value that the second one takes.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 2**25


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory for this process, instead of giving it back to the system after each step.

    Temporaries of some MB come and go hundreds of times a second; to have each of them filled with fresh pages took a
    third of the electrons' moves. The process stays as large as it once was. Only glibc (Linux) knows the setting.

    Returns:
        Whether it took effect.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_TRIM_THRESHOLD, 2**30) and mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD))


def max_chunk_elements(positions: Tensor) -> int:
    """Bound for the number of elements of a temporary on the device of the positions."""
    return MAX_ELEMENTS_CPU if positions.device.type == "cpu" else MAX_ELEMENTS_ACCELERATOR


def map_chunks(function: Callable[..., tuple[Tensor, ...]], limit: int, *positions: Tensor) -> tuple[Tensor, ...]:
    """Apply a function to at most `limit` configurations at a time.

    Args:
        function: maps positions to tensors with the broadcast leading dimensions of its arguments.
        limit: largest number of configurations, positive.
        positions: with equally many leading dimensions, which broadcast.  # (..., N, 3)

    Returns:
        What function gives for all positions together.  # (...) each
    """
    batch = torch.broadcast_shapes(*(each.shape[:-2] for each in positions))
    if math.prod(batch) <= limit:
        return function(*positions)
    # To divide a dimension that all have repeats no work.
    dim = max(range(len(batch)), key=lambda d: (all(each.shape[d] > 1 for each in positions), batch[d]))
    halves = [each.tensor_split(2, dim) if each.shape[dim] > 1 else (each, each) for each in positions]
    parts = [map_chunks(function, limit, *half) for half in zip(*halves, strict=True)]
    return tuple(torch.cat(pair, dim=dim) for pair in zip(*parts, strict=True))
