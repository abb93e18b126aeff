"""State points that fill a region of densities and temperatures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real

from scipy.stats import qmc

from lightning_vfe.errors import SettingError
from lightning_vfe.physics.state_point import StatePoint


def region_points(
    rs_range: Sequence[float], temperature_range: Sequence[float], count: int, seed: int
) -> list[StatePoint]:
    """Points of an optimized Latin hypercube: `count` densities and `count` temperatures, each used once.

    Both axes are divided into `count` equal parts, and the points stand in the middles. Which density goes with which
    temperature is chosen so that the points have a low discrepancy.

    Args:
        rs_range: least and largest rs in bohr.
        temperature_range: least and largest T in K.
        count: number of points.
        seed: of the choice.

    Returns:
        The points, sorted by density, to four decimals of rs and whole kelvins.

    Raises:
        SettingError: a range is no pair of increasing numbers, or the count is not positive.
    """
    if count < 1:
        raise SettingError("num_states", count, "must be at least 1", "40 states fill a region well")
    lower, upper = zip(_pair("rs_range", rs_range), _pair("temperature_range", temperature_range), strict=True)
    hypercube = qmc.LatinHypercube(2, scramble=False, optimization="random-cd", rng=seed)
    points = qmc.scale(hypercube.random(count), lower, upper)
    return sorted(StatePoint(round(float(rs), 4), float(round(temperature))) for rs, temperature in points)


def _pair(key: str, value: Sequence[float]) -> tuple[float, float]:
    """Two positive numbers, the first the smaller one."""
    is_pair = not isinstance(value, str) and len(value) == 2
    if not is_pair or any(not isinstance(end, Real) or isinstance(end, bool) for end in value):
        raise SettingError(key, value, "must be a pair of numbers", "give the least and the largest, as in [1.2,2.1]")
    low, high = (float(end) for end in value)
    if not (0 < low < high and math.isfinite(high)):
        raise SettingError(key, list(value), "must be two positive numbers, the smaller one first", "swap or change it")
    return low, high
