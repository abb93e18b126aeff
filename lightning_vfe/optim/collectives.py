"""What the processes of a run tell each other about scores: sums, and rows turned into columns."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

LARGEST_MESSAGE = 2**26
"""Bytes that one process sends at once."""


class Collectives:
    """The processes of torch.distributed, or this one alone where there is no group.

    Samples are dealt to the processes in order, in equal shares; so are the parameters where all samples are needed in
    one place. Process q of R owns the columns from q C to (q + 1) C of C = ceil(P / R), the last ones zero.
    """

    def __init__(self) -> None:
        self.size = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        self.rank = dist.get_rank() if self.size > 1 else 0

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the processes, the same bits on all of them.  # (...) -> (...)"""
        if self.size == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes in order.  # (M / R, ...) -> (M, ...)"""
        if self.size == 1:
            return rows
        rows = rows.contiguous()
        parts = [torch.empty_like(rows) for _ in range(self.size)]
        dist.all_gather(parts, rows)
        return torch.cat(parts)

    def gather_objects(self, own: Any) -> list[Any] | None:
        """The picklable objects of all processes in order, for the first process; None for the others."""
        if self.size == 1:
            return [own]
        found: list[Any] | None = [None] * self.size if self.rank == 0 else None
        dist.gather_object(own, found)
        return found

    def broadcast(self, values: Tensor) -> Tensor:
        """The values of the first process.  # (...) -> (...)"""
        if self.size == 1:
            return values
        copy = values.clone()
        dist.broadcast(copy, 0)
        return copy

    def width(self, num_columns: int) -> int:
        """C, the columns that a process owns."""
        return math.ceil(num_columns / self.size)

    def shard(self, values: Tensor) -> Tensor:
        """The own columns, padded with zeros.  # (..., P) -> (..., C)"""
        width = self.width(values.shape[-1])
        padded = torch.nn.functional.pad(values, (0, self.size * width - values.shape[-1]))
        return padded[..., self.rank * width : (self.rank + 1) * width]

    def unshard(self, own: Tensor, num_columns: int) -> Tensor:
        """The columns of all processes.  # (C,) -> (P,)"""
        return self.gather(own)[:num_columns]

    def transpose_shards(self, rows: Tensor) -> Tensor:
        """All rows of the own columns, in messages of bounded size.  # (M / R, P) -> (M, C)"""
        if self.size == 1:
            return rows
        count, num_columns = rows.shape
        width = self.width(num_columns)
        step = max(1, LARGEST_MESSAGE // (count * self.size * rows.element_size()))
        found = rows.new_empty(self.size, count, width)
        for start in range(0, width, step):
            stop = min(start + step, width)
            sent = rows.new_zeros(self.size, count, stop - start)
            for other in range(self.size):
                first = other * width + start
                part = rows[:, first : min(other * width + stop, num_columns)]
                sent[other, :, : part.shape[1]] = part
            received = torch.empty_like(sent)
            dist.all_to_all_single(received, sent)
            found[:, :, start:stop] = received
        return found.flatten(0, 1)
