"""g(r) over time, in blocks of steps, so that steps at the start can be left out afterwards."""

from __future__ import annotations

from torch import Tensor

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.equilibration import MOST_BLOCKS
from lightning_vfe.physics.observables import RadialDistributions


class RadialSeries:
    """Collects g(r) while the chains run, in at most MOST_BLOCKS blocks of equal length.

    Where there are more, two neighbours become one: the memory does not grow with the number of steps, and the length
    is `equilibration.block_length`.

    Args:
        cell: the periodic cell, in units of rs.
        num_up: electrons with spin up; None is half of them.
    """

    def __init__(self, cell: PeriodicCell, num_up: int | None = None) -> None:
        self._cell, self._num_up = cell, num_up
        self._length = 1  # steps in a block
        self._blocks: list[dict[str, Tensor]] = []  # of g(r) of each walker
        self._current, self._steps = self._new(), 0
        self.bins = self._current
        """Bins, and how walkers become a mean."""

    def _new(self) -> RadialDistributions:
        return RadialDistributions(self._cell, num_up=self._num_up)

    def update(self, protons: Tensor, electrons: Tensor) -> None:
        """Add one step of every walker.

        Args:
            protons: # (W, N, 3)
            electrons: # (W, B, N, 3)
        """
        if self._steps == self._length:
            self._blocks.append(self._current.per_walker())
            self._current, self._steps = self._new(), 0
        if len(self._blocks) == MOST_BLOCKS:
            pairs = zip(self._blocks[::2], self._blocks[1::2], strict=True)
            self._blocks = [{name: (one[name] + two[name]) / 2 for name in one} for one, two in pairs]
            self._length *= 2
        self._current.update(protons, electrons)
        self._steps += 1

    def per_walker(self, start: int = 0) -> dict[str, Tensor]:
        """g(r) of each walker over the steps from `start` on, a multiple of the length of a block.

        Returns:
            As `RadialDistributions.per_walker`.  # (W, bins) each
        """
        blocks = [(self._length, block) for block in self._blocks] + [(self._steps, self._current.per_walker())]
        kept = blocks[start // self._length :]
        total = sum(length for length, _ in kept)
        names = kept[0][1]
        return {name: sum((length / total) * block[name] for length, block in kept) for name in names}  # type: ignore[misc]
