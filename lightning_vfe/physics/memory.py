"""How much memory is free, and which errors mean that it did not suffice."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

_MEMINFO = Path("/proc/meminfo")
_OWN_PAGES = Path("/proc/self/statm")
_MESSAGES = ("out of memory", "can't allocate memory", "alloc_failed")
"""Of PyTorch's allocators for accelerators and for the CPU, and of the CUDA libraries."""


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be taken on a device; None where the system does not tell (a CPU without Linux).

    On a CPU it is the smaller of what the machine has and what the limit of the process leaves (`ulimit -v`).
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu" or not _MEMINFO.exists():
        return None
    lines = _MEMINFO.read_text().splitlines()
    available = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    found = [1024 * int(available[0])] if available else []
    if (left := _left_to_process()) is not None:
        found.append(left)
    return min(found, default=None)


def _left_to_process() -> int | None:
    """Bytes of address space below the limit of this process; None without a limit."""
    import resource  # systems without it have no /proc, either

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    return max(0, limit - int(_OWN_PAGES.read_text().split()[0]) * resource.getpagesize())


def peak_memory(device: torch.device) -> int:
    """Bytes of memory that this process has taken at most on a device."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource  # Windows has none

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def size_text(count: int) -> str:
    """A number of bytes in GiB."""
    return f"{count / 2**30:.3g} GiB"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that an allocation failed; on a CPU it is a plain RuntimeError."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(message in text for message in _MESSAGES)
