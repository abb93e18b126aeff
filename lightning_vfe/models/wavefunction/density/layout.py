"""How the electron density arranges its numbers.

Walkers come last: the w = W B electron walkers, those of one proton walker side by side. Every operation then runs over
long rows of memory, a product with weights is one product of matrices for all pairs of all walkers, and a message is a
sum over an outer dimension.

Particles stand in four blocks of n = N/2: electrons up, electrons down, and the protons in two blocks. Both halves of
the protons have the same weights. In front of everything stands the block of a state (4, S, n, w), or of the sender of
a pair (4, F, N, n, w): feature F of the pair of electron N and sender n of that block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor


def walkers_last(x: Tensor) -> Tensor:
    """(W, ...) -> (..., W), contiguous."""
    return x.movedim(0, -1).contiguous()


def repeat_walkers(x: Tensor, count: int) -> Tensor:
    """(..., W) -> (..., W B): the numbers of each proton walker for all B = count of its electron walkers."""
    return x if count == 1 else x.unsqueeze(-1).expand(*x.shape, count).flatten(-2)


def first_walkers(x: Tensor, count: int) -> Tensor:
    """The first `count` walkers of (..., w), contiguous."""
    return x[..., :count].contiguous()


def added(new: Tensor, state: Tensor) -> Tensor:
    """new + state, in the memory of new unless a derivative needs it."""
    return new + state if torch.is_grad_enabled() else new.add_(state)


def tensors_of(constants: Any) -> Iterator[Tensor]:
    """All tensors of nested tuples, in their order."""
    if isinstance(constants, Tensor):
        yield constants
    elif constants is not None:
        for each in constants:
            yield from tensors_of(each)


def converted(constants: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same nested (named) tuples with every tensor changed."""
    if constants is None or isinstance(constants, Tensor):
        return None if constants is None else change(constants)
    parts = [converted(each, change) for each in constants]
    return type(constants)(*parts) if hasattr(constants, "_fields") else tuple(parts)
