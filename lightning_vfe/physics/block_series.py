"""Averages over time in blocks of steps, so that steps at the start can be left out afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from torch import Tensor

from lightning_vfe.physics.equilibration import MOST_BLOCKS


class Collector(Protocol):
    """Averages something of every walker over time, such as `RadialDistributions` and `StructureFactors`."""

    def update(self, protons: Tensor, electrons: Tensor) -> None:
        """Add one step of every walker.  # (W, N, 3), (W, B, N, 3)"""

    def per_walker(self) -> dict[str, Tensor]:
        """Averages of each walker.  # (W, ...) each"""


C = TypeVar("C", bound=Collector)


class BlockSeries(Generic[C]):
    """Collects while the chains run, in at most MOST_BLOCKS blocks of equal length.

    Where there are more, two neighbours become one: the memory does not grow with the number of steps, and the length
    is `equilibration.block_length`.

    Args:
        make: gives an empty collector.
    """

    def __init__(self, make: Callable[[], C]) -> None:
        self._make = make
        self._length = 1  # steps in a block
        self._blocks: list[dict[str, Tensor]] = []  # averages of each walker
        self._current, self._steps = make(), 0
        self.empty = make()
        """Knows how walkers become a mean."""

    def update(self, protons: Tensor, electrons: Tensor) -> None:
        """Add one step of every walker.

        Args:
            protons: # (W, N, 3)
            electrons: # (W, B, N, 3)
        """
        if self._steps == self._length:
            self._blocks.append(self._current.per_walker())
            self._current, self._steps = self._make(), 0
        if len(self._blocks) == MOST_BLOCKS:
            pairs = zip(self._blocks[::2], self._blocks[1::2], strict=True)
            self._blocks = [{name: (one[name] + two[name]) / 2 for name in one} for one, two in pairs]
            self._length *= 2
        self._current.update(protons, electrons)
        self._steps += 1

    def per_walker(self, start: int = 0) -> dict[str, Tensor]:
        """Averages of each walker over the steps from `start` on, a multiple of the length of a block.

        Returns:
            As `per_walker` of the collector.
        """
        blocks = [(self._length, block) for block in self._blocks] + [(self._steps, self._current.per_walker())]
        kept = blocks[start // self._length :]
        total = sum(length for length, _ in kept)
        names = kept[0][1]
        return {name: sum((length / total) * block[name] for length, block in kept) for name in names}  # type: ignore[misc]
