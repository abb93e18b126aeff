"""Threads that exchange tensors as the processes of a distributed run do."""

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lightning_vfe.optim.collectives import Collectives

_own = threading.local()


def run_processes(function: Callable[[int, Callable[[Tensor], Tensor]], Any], num_processes: int) -> list[Any]:
    """function(rank, gather) on every rank, gather concatenating the tensors of all; the results by rank."""
    slots: list[Any] = [None] * num_processes
    results: list[Any] = [None] * num_processes
    barrier = threading.Barrier(num_processes, timeout=20.0)

    def run(rank):
        def gather(values):
            slots[rank] = values
            barrier.wait()
            everything = torch.cat(slots)
            barrier.wait()
            return everything

        torch.set_default_dtype(torch.float64)
        results[rank] = function(rank, gather)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(num_processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def one_process(values: Tensor) -> Tensor:
    """What gather does where there is nobody else."""
    return values


class ThreadCollectives(Collectives):
    """What the package takes for the processes of torch.distributed, inside of `run_processes`."""

    def __init__(self) -> None:
        self.rank, self.size, self._gather = getattr(_own, "place", (0, 1, one_process))

    @staticmethod
    def enter(rank: int, size: int, gather: Callable[[Tensor], Tensor]) -> None:
        """To be called first on every rank."""
        _own.place = rank, size, gather

    def gather(self, rows: Tensor) -> Tensor:
        return self._gather(rows)

    def sum(self, values: Tensor) -> Tensor:
        return self._gather(values.unsqueeze(0)).sum(0)
