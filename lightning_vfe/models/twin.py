"""A network in another precision, kept beside the original."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


class Twin(Generic[Module]):
    """The copy of a network in another precision, for Markov chains.

    The copy keeps its memory: `module` overwrites the parameters with those that the original has now. Graphs and
    compiled code that hold the copy's tensors stay valid. It does not record derivatives of parameters.

    Args:
        original: the network.
        dtype: precision of the copy.

    Attributes:
        dtype: precision of the copy.
    """

    def __init__(self, original: Module, dtype: torch.dtype) -> None:
        self._original, self.dtype = original, dtype
        self._copy = copy.deepcopy(original).to(dtype).requires_grad_(False)

    @torch.no_grad()
    def module(self) -> Module:
        """The copy, with the parameters and buffers that the original has now."""
        for part in (nn.Module.parameters, nn.Module.buffers):
            if copies := list(part(self._copy)):
                torch._foreach_copy_(copies, list(part(self._original)))
        return self._copy
