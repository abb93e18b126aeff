"""Work in blocks: a bound for the memory of temporaries, and many configurations a part at a time.

The bound is a number of elements. It comes from the memory that is free, or from the key `max_chunk_elements`. Where
the memory does not suffice, `map_chunks` and `map_rows` halve the bound for the rest of the run and repeat the chunk.
"""

from __future__ import annotations

import ctypes
import functools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_vfe.errors import SettingError
from lightning_vfe.physics.memory import free_memory, is_out_of_memory

MAX_ELEMENTS_CPU = 2**19
"""On a CPU 4 MiB of doubles stay near its caches: larger blocks were measured to be slower."""
MAX_KEPT_ELEMENTS_CPU = 2**26
"""What a backward pass keeps does not stay there anyhow: larger blocks were measured to be faster."""
MAX_ELEMENTS_ACCELERATOR = 2**25
"""On a device that does not tell its free memory. An accelerator wants few and large operations."""
MEMORY_SHARE = 128
"""A temporary takes at most this part of the free memory: about ten of them are held at once."""
KEPT_TEMPORARIES = 32
"""What a backward pass keeps may be as large as this many temporaries: a quarter of the free memory."""

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


@dataclass
class _Bound:
    """What this process has been told and has found out about its memory."""

    chosen: int | None = None
    halvings: int = 0


_bound = _Bound()


def set_max_chunk_elements(elements: int | None) -> None:
    """Set the bound of this process, and forget former halvings.

    Args:
        elements: largest number of elements of a temporary, at least 1; None takes it from the memory that is free.
    """
    _bound.chosen, _bound.halvings = elements, 0
    _affordable_elements.cache_clear()


def max_chunk_elements(positions: Tensor) -> int:
    """Bound for the number of elements of a temporary on the device of the positions."""
    return _largest(positions.device, MAX_ELEMENTS_CPU, 1)


def max_kept_elements(positions: Tensor) -> int:
    """Bound for the number of elements that are kept for a backward pass, on the device of the positions."""
    return _largest(positions.device, MAX_KEPT_ELEMENTS_CPU, KEPT_TEMPORARIES)


def _largest(device: torch.device, largest_on_cpu: int, temporaries: int) -> int:
    """Bound for what is as large as this many temporaries."""
    if _bound.chosen is not None:
        elements = temporaries * _bound.chosen
    else:
        elements = temporaries * (_affordable_elements(device) or MAX_ELEMENTS_ACCELERATOR)
        elements = min(elements, largest_on_cpu) if device.type == "cpu" else elements
    return max(1, elements >> _bound.halvings)


def after_halvings(limit: int) -> int:
    """A limit for `map_chunks` or `map_rows` that does not come from `max_chunk_elements`, halved as often as that."""
    return max(1, limit >> _bound.halvings)


@functools.cache
def _affordable_elements(device: torch.device) -> int | None:
    """Doubles in a share of the memory that is free at the first call; None where that is unknown.

    A power of two: two runs on one machine then work in equal chunks, and round alike.
    """
    free = free_memory(device)
    return None if free is None else 2 ** max(0, math.floor(math.log2(max(1, free / (8 * MEMORY_SHARE)))))


def map_chunks(function: Callable[..., tuple[Tensor, ...]], limit: int, *positions: Tensor) -> tuple[Tensor, ...]:
    """Apply a function to at most `limit` configurations at a time, and to fewer where the memory does not suffice.

    Args:
        function: maps positions to tensors with the broadcast leading dimensions of its arguments; or writes into
            tensors that are given with the positions.
        limit: largest number of configurations, positive, from `max_chunk_elements` or `after_halvings`.
        positions: with equally many leading dimensions, which broadcast.  # (..., N, 3)

    Returns:
        What function gives for all positions together.  # (...) each

    Raises:
        SettingError: one configuration alone does not fit into the memory.
    """
    return _map(function, limit << _bound.halvings, positions, lambda each: each.shape[:-2])


def map_rows(function: Callable[..., tuple[Tensor, ...]], limit: int, *rows: Tensor) -> tuple[Tensor, ...]:
    """The same for tensors of any shape that share their first dimension, (W, ...) -> (W, ...) each."""
    return _map(function, limit << _bound.halvings, rows, lambda each: each.shape[:1])


def _map(
    function: Callable[..., tuple[Tensor, ...]],
    unhalved_limit: int,
    tensors: tuple[Tensor, ...],
    leading: Callable[[Tensor], torch.Size],
) -> tuple[Tensor, ...]:
    """map_chunks over the leading dimensions, which broadcast; the limit shrinks with the bound."""
    batch = torch.broadcast_shapes(*(leading(each) for each in tensors))
    count = math.prod(batch)
    if count <= max(1, unhalved_limit >> _bound.halvings):
        found = _attempt(function, tensors, count)
        if found is not None:
            return found
    # To divide a dimension that all have repeats no work.
    dim = max(range(len(batch)), key=lambda d: (all(each.shape[d] > 1 for each in tensors), batch[d]))
    num_parts = min(batch[dim], max(2, math.ceil(count / max(1, unhalved_limit >> _bound.halvings))))
    split = [each.tensor_split(num_parts, dim) if each.shape[dim] > 1 else (each,) * num_parts for each in tensors]
    parts = [_map(function, unhalved_limit, part, leading) for part in zip(*split, strict=True)]
    return tuple(torch.cat(results, dim=dim) for results in zip(*parts, strict=True))


def _attempt(
    function: Callable[..., tuple[Tensor, ...]], tensors: tuple[Tensor, ...], count: int
) -> tuple[Tensor, ...] | None:
    """What the function gives; None, with the bound halved, where the memory did not suffice for that."""
    try:
        return function(*tensors)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if count <= 1:
            bound = max_chunk_elements(tensors[0])
            raise SettingError(
                "max_chunk_elements",
                bound,
                "is not the cause: a single configuration does not fit into the memory",
                "use fewer walkers, smaller networks or fewer atoms",
            ) from error
    # Out of the handler: the error holds the temporaries of the failed call.
    _halve(tensors[0], count)
    return None


def _halve(like: Tensor, count: int) -> None:
    """Halve the bound; the first time say so."""
    _bound.halvings += 1
    if like.device.type == "cuda":
        torch.cuda.empty_cache()
    if _bound.halvings == 1:
        warnings.warn(
            f"out of memory with {count} configurations at a time; the run continues with fewer "
            f"(max_chunk_elements={max_chunk_elements(like)} begins with half as many)",
            RuntimeWarning,
            stacklevel=2,
        )
