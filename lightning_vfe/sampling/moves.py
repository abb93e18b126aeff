"""What a move of the protons gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class ProtonMove(NamedTuple):
    """Where the protons of the walkers went in a sweep, and what there is to report."""

    protons: Tensor
    """Inside the cell. # (W, N, 3)"""
    displacement: Tensor
    """Along which the electrons are carried, not wrapped. # (W, N, 3)"""
    fractions: Mapping[str, tuple[Tensor, int]]
    """Accepted decisions of each walker  # (W,), out of how many; or any numbers to be averaged over the walkers."""
    totals: Mapping[str, Tensor]
    """Numbers that are added up over the processes, float64. # ()"""
    adapts: bool = True
    """Whether the width of the moves follows `proton_acceptance`."""


def global_fraction(accepted: Tensor, num_steps: int, add_up: Callable[[Tensor], Tensor]) -> Tensor:
    """Accepted fraction over all chains of all processes.

    Whole numbers are added up, so that the order of the sum cannot change the result. Other numbers may depend on it in
    the last digit.
    """
    total = accepted.sum()
    totals = add_up(torch.stack([total, total.new_tensor(accepted.numel() * num_steps)]).to(torch.float64))
    return totals[0] / totals[1]
