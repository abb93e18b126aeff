"""Whether the kernels are used: on a GPU, if Triton is there and they agree with the plain code."""

from __future__ import annotations

import functools
import importlib.util
import os
import warnings
from collections.abc import Callable, Hashable

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lightning_vfe.models.wavefunction.density.pairs import PairConstants
from lightning_vfe.models.wavefunction.density.streams import StreamConstants, Streams, plain_streams

SWITCH = "LIGHTNING_VFE_FUSED"
"""Environment variable; 0 turns the kernels off."""
NUM_COMPARED = 16
"""Electron walkers, at least, of the comparison with the plain code."""
TOLERANCE = 300.0
"""Of the comparison, in units of rounding: far above what the order of sums makes, far below TF32."""

LARGEST = 2**31
"""Numbers of a block of pairs: what 32-bit places reach."""

Run = Callable[[PairConstants, StreamConstants, Tensor, float], Streams]

_agreed: set[Hashable] = set()
failures: list[str] = []
"""Why the kernels are not used any more in this process."""


def fused_or_plain_streams(
    pairs: PairConstants, constants: StreamConstants, positions: Tensor, unit_length: float
) -> Streams:
    """All layers by the kernels where they can be used, else `plain_streams`; both up to rounding.

    The first use of each kind of sizes and numbers in a process compares both on the first walkers, value and
    gradient. If they differ, or the kernels cannot be compiled, a warning says so once, and the plain code is used.
    """
    if can_be_used(positions, constants) and _agree(pairs, constants, positions, unit_length):
        return kernels()(pairs, constants, positions, unit_length)
    return plain_streams(pairs, constants, positions, unit_length)


def can_be_used(positions: Tensor, constants: StreamConstants) -> bool:
    """First derivatives alone, of real numbers on a GPU, and Triton is installed."""
    if not is_on_gpu(positions) or failures or os.environ.get(SWITCH) == "0":
        return False
    if constants.first.pairs.dtype not in (torch.float32, torch.float64):
        return False
    width, num_pairs = constants.first.pairs.shape[1], positions[..., 0].numel() * (positions.shape[-2] // 2)
    if width * num_pairs >= LARGEST:
        return False
    in_functorch = torch._C._functorch.is_functorch_wrapped_tensor(positions)
    return has_triton() and not in_functorch and forward_ad.unpack_dual(positions).tangent is None


@functools.cache
def has_triton() -> bool:
    """Whether Triton is installed: the CUDA builds of torch bring it."""
    return importlib.util.find_spec("triton") is not None


def is_on_gpu(positions: Tensor) -> bool:
    """Whether Triton has code for the device."""
    return positions.is_cuda


def kernels() -> Run:
    """Imported at the first use only: Triton is not everywhere."""
    from lightning_vfe.models.wavefunction.density.fused.streams import fused_streams

    return fused_streams


def _agree(pairs: PairConstants, constants: StreamConstants, positions: Tensor, unit_length: float) -> bool:
    key = (positions.device, constants.first.pairs.dtype, constants.first.pairs.shape, positions.shape[-2])
    if key in _agreed:
        return True
    if positions.is_cuda and torch.cuda.is_current_stream_capturing():
        return False  # the comparison waits for the GPU
    num, count = positions.shape[:2]
    few = min(num, -(-NUM_COMPARED // count))
    given = (pairs.first(few * count), constants.of_first(few, num), positions[:few], unit_length)
    try:
        error = largest_error(numbers_of(plain_streams, *given), numbers_of(kernels(), *given))
    except torch.OutOfMemoryError:
        raise
    except Exception as found:  # Triton and the compilers behind it raise errors of all kinds
        return _give_up(f"{type(found).__name__}: {str(found).strip().partition(chr(10))[0]}")
    if not error < TOLERANCE:
        return _give_up(f"they differ from the plain code by {error:.0e} in units of rounding")
    _agreed.add(key)
    return True


def numbers_of(
    run: Run, pairs: PairConstants, constants: StreamConstants, positions: Tensor, length: float
) -> list[Tensor]:
    """All that the streams give, and the derivative of its sum by the positions."""
    with torch.enable_grad():
        variable = positions.detach().requires_grad_()
        found = run(pairs, constants, variable, length)
        width = constants.first.pairs.shape[1] - 1  # without the constant feature
        values = [found.electrons, *(each[:width] for each in found.opposite), found.cusps]
        total = torch.stack([each.sum() for each in values]).sum()
        return [*(each.detach() for each in values), *torch.autograd.grad(total, variable)]


def largest_error(expected: list[Tensor], found: list[Tensor]) -> float:
    """In units of the rounding of the largest number."""
    rounding = torch.finfo(expected[0].dtype).eps
    errors = [(a - b).abs().max() / a.abs().max() for a, b in zip(expected, found, strict=True)]
    return float(torch.stack([error.to(torch.float64) for error in errors]).max()) / rounding


def _give_up(reason: str) -> bool:
    failures.append(reason)
    warnings.warn(f"the fused kernels are not used, which costs time only: {reason}", stacklevel=2)
    return False
