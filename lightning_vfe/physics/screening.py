"""Parameters of the Ewald sums: the screening, the images and the wavevectors that a required accuracy requires.

Everything is in units of the cell: alpha L, distances / L, and |n|^2 for the wavevectors k = 2 pi n / L.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import erfc

from lightning_vfe.errors import SettingError
from lightning_vfe.physics.cell import integer_vectors

MADELUNG_SIMPLE_CUBIC = -2.8372974794806
"""Energy of one charge, its images and their background: MADELUNG_SIMPLE_CUBIC / (2 L)."""

# Cost of one screened pair and of one real structure factor of one particle, in units of the second: measured on CPUs.
_COST_OF_PAIR = 60.0
# erfc(9) and exp(-81) vanish beside the smallest accuracy that float64 can reach.
_NEGLIGIBLE = 9.0
_SMALLEST, _LARGEST = 1.0, 30.0


@dataclass(frozen=True)
class Screening:
    """What the two sums run over.

    Attributes:
        alpha_length: alpha L, without a unit.
        images: lattice translations n of the real-space sum, zero included.  # (M, 3) int64
        max_square: the reciprocal sum keeps 0 < |n|^2 <= max_square.
    """

    alpha_length: float
    images: np.ndarray
    max_square: int


def check_accuracy(relative_accuracy: float, key: str) -> None:
    """Refuse an accuracy that no sum reaches, or that means nothing.

    Args:
        relative_accuracy: of energies.
        key: its name where it was given.

    Raises:
        ValueError: it is not between 1e-14 and 1.
    """
    if not 1e-14 < relative_accuracy < 1.0:
        raise SettingError(key, relative_accuracy, "must lie between 1e-14 and 1", "1e-8 is usual")


def choose_screening(num_atoms: int, relative_accuracy: float, alpha_length: float | None = None) -> Screening:
    """Choose the sums that reach an accuracy at the least cost.

    Each of the two neglected tails is bounded by its worst case, N^2 pairs at the least favourable displacement and
    |S(k)|^2 = N^2, and kept below half of relative_accuracy times N |MADELUNG_SIMPLE_CUBIC| / (2 L), the energy of N
    charges that feel their own images only.

    Args:
        num_atoms: N, charges of either sign.
        relative_accuracy: between 1e-14 and 1.
        alpha_length: use this alpha L instead of the cheapest one; the sums then follow from the accuracy.

    Raises:
        ValueError: relative_accuracy or alpha_length is out of range.
    """
    check_accuracy(relative_accuracy, "relative_accuracy")
    if alpha_length is not None and not _SMALLEST <= alpha_length <= _LARGEST:
        raise SettingError("alpha_length", alpha_length, f"must lie between {_SMALLEST} and {_LARGEST}", "leave it out")
    tail = 0.5 * relative_accuracy * abs(MADELUNG_SIMPLE_CUBIC) / 2.0 / num_atoms
    if alpha_length is not None:
        reaches = _image_reaches(_NEGLIGIBLE / alpha_length + 1.0)
        reach = next(reach for reach in reaches if _real_tail(alpha_length, reach) <= tail)
        return Screening(alpha_length, _images_within(reach), _largest_square(alpha_length, tail))
    choices = []
    for reach in _image_reaches(2.0):
        alpha = _smallest_alpha(reach, tail)
        if alpha <= _LARGEST:
            choices.append(Screening(alpha, _images_within(reach), _largest_square(alpha, tail)))
    return min(choices, key=functools.partial(_cost, num_atoms))


def _cost(num_atoms: int, screening: Screening) -> float:
    """Work for one configuration of both species: screened pairs with their images, and structure factors."""
    pairs = num_atoms * (2 * num_atoms - 1)
    structure_factors = 8.0 * math.pi / 6.0 * (math.sqrt(screening.max_square) + 1.0) ** 3
    return _COST_OF_PAIR * pairs * len(screening.images) + 2 * num_atoms * structure_factors


def _closest(integers: np.ndarray) -> np.ndarray:
    """Least |d + n| over the minimum images d in [-1/2, 1/2]^3.  # (M, 3) -> (M,)"""
    distances: np.ndarray = np.sqrt((np.maximum(np.abs(integers) - 0.5, 0.0) ** 2).sum(axis=-1))
    return distances


def _image_reaches(largest: float) -> list[float]:
    """Distances / L at which a complete set of images ends, in increasing order, up to largest."""
    closest = _closest(integer_vectors(math.ceil(largest)))
    return sorted(set(closest[(closest > 0.0) & (closest <= largest)].tolist()))


def _images_within(reach: float) -> np.ndarray:
    """The images that can come closer than reach, without those that only touch it.  # (M, 3)"""
    integers = integer_vectors(math.ceil(reach))
    return integers[_closest(integers) < reach * (1.0 - 1e-12)]


def _real_tail(alpha_length: float, reach: float) -> float:
    """Bound for sum_n erfc(alpha |d + L n|) L / |d + L n| over the images left out, for the worst d."""
    closest = _closest(integer_vectors(math.ceil(_NEGLIGIBLE / alpha_length)))
    outside = closest[closest >= reach * (1.0 - 1e-12)]
    return float((erfc(alpha_length * outside) / outside).sum())


def _smallest_alpha(reach: float, tail: float) -> float:
    """The alpha L at which the real-space tail beyond reach is just small enough."""
    if _real_tail(_SMALLEST, reach) <= tail:
        return _SMALLEST
    return float(brentq(lambda alpha: math.log(_real_tail(alpha, reach) / tail), _SMALLEST, _NEGLIGIBLE / reach))


def _largest_square(alpha_length: float, tail: float) -> int:
    """The least M for which (1/pi) sum_{|n|^2 > M} exp(-(pi |n| / alpha L)^2) / |n|^2 is small enough."""
    end = math.ceil((_NEGLIGIBLE * alpha_length / math.pi) ** 2) + 1
    # Numbers of integer vectors with a given |n|^2: the squares of one component, convolved three times.
    line = np.zeros(end + 1)
    roots = np.arange(1, math.isqrt(end) + 1)
    line[0], line[roots**2] = 1.0, 2.0
    plane = np.convolve(line, line)[: end + 1]
    count = np.convolve(plane, line)[: end + 1]
    squares = np.arange(1, end + 1)
    terms = count[1:] * np.exp(-((math.pi / alpha_length) ** 2) * squares) / squares / math.pi
    beyond = terms[::-1].cumsum()[::-1]  # beyond[j]: what is lost if the sum stops before |n|^2 = j + 1
    enough = np.flatnonzero(beyond <= tail)
    return max(1, int(enough[0])) if len(enough) else end
