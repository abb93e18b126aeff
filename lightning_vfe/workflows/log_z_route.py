"""The path of `log-z` through several state points, with states between those that overlap too little."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lightning_vfe.log_z.between import TargetPath
from lightning_vfe.models.potential.chunked import chunked_energy
from lightning_vfe.models.potential.potential import Potential
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.state_point import StatePoint


def path_order(points: Sequence[StatePoint]) -> tuple[StatePoint, ...]:
    """State points so that neighbours are near: by density, with the temperature falling and rising in turn."""
    ordered: list[StatePoint] = []
    for number, rs in enumerate(sorted({point.rs for point in points})):
        own = [point for point in points if point.rs == rs]
        ordered += sorted(own, key=lambda point: point.temperature_kelvin, reverse=number % 2 == 0)
    return tuple(ordered)


class Route:
    """State points along the path; those that `between` adds are added for good.

    Args:
        yukawa: first stop of the path, at the first state.
        potential: taken at all states.
        points: the wanted states, in any order.
        num_atoms: N.
    """

    def __init__(self, yukawa: Potential, potential: Potential, points: Sequence[StatePoint], num_atoms: int) -> None:
        self.yukawa, self.potential, self.num_atoms = yukawa, potential, num_atoms
        self.wanted = path_order(points)
        self.points = list(self.wanted)

    @property
    def rows(self) -> list[int]:
        """Places of the wanted states on the path, in the order of `wanted`."""
        return [self.points.index(point) for point in self.wanted]

    @property
    def added(self) -> list[int]:
        """Places of the others."""
        return [number for number, point in enumerate(self.points) if point not in self.wanted]

    def path(self) -> TargetPath:
        """Energies, stages and targets of `integrate_path`, for kT = 1 in the cell of rs = 1."""
        energies, stages = path_of_states(self.yukawa, self.potential, self.points, self.num_atoms)
        return energies, stages, [2 + number for number in range(len(self.points))]

    def between(self, numbers: Sequence[int], _overlaps: Sequence[float]) -> TargetPath:
        """Put a state between the k-th and the next one, for each k of the numbers; the new path."""
        for k in sorted(numbers, reverse=True):
            self.points.insert(k + 1, halfway(self.points[k], self.points[k + 1]))
        return self.path()


def halfway(one: StatePoint, other: StatePoint) -> StatePoint:
    """The state point between two: geometric means of rs and of T, to five digits."""
    rs, kelvin = (
        float(f"{math.sqrt(getattr(one, name) * getattr(other, name)):.5g}") for name in ("rs", "temperature_kelvin")
    )
    # where two states share a number, it stays as it is
    return StatePoint(
        one.rs if one.rs == other.rs else rs,
        one.temperature_kelvin if one.temperature_kelvin == other.temperature_kelvin else kelvin,
    )


def path_of_states(
    yukawa: Potential, potential: Potential, points: Sequence[StatePoint], num_atoms: int
) -> tuple[list[Callable[[Tensor], Tensor]], Tensor]:
    """The path ideal gas -> Yukawa -> first state -> second state -> ..., for kT = 1 in the cell of rs = 1.

    Args:
        yukawa: taken at the first state.
        potential: taken at all of them; each density costs one energy, whatever the number of temperatures.
        points: the states in the order of the path.
        num_atoms: N.

    Returns:
        The energies of Yukawa and of each density in Ha, as functions of u = z/rs; the path's potentials E/kT as sums
        of them.  # (1 + S, 1 + densities)
    """
    densities = sorted({point.rs for point in points})
    energies = [_in_units_of_rs(yukawa, points[0].rs, num_atoms)]
    energies += [_in_units_of_rs(potential, rs, num_atoms) for rs in densities]
    stages = torch.zeros(1 + len(points), len(energies), dtype=torch.float64)
    stages[0, 0] = 1.0 / points[0].kT
    for number, point in enumerate(points, start=1):
        stages[number, 1 + densities.index(point.rs)] = 1.0 / point.kT
    return energies, stages


def _in_units_of_rs(potential: Potential, rs: float, num_atoms: int) -> Callable[[Tensor], Tensor]:
    energy = chunked_energy(potential, PeriodicCell(num_atoms, rs))
    return lambda u: energy(rs * u)
