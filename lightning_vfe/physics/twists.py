"""Twists: phases exp(2 pi i f_d) that a wavefunction gains when an electron crosses the cell along d."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal, TypeGuard, get_args

import torch
from ase.dft.kpoints import monkhorst_pack
from torch import Tensor

from lightning_vfe.errors import SettingError

TwistSpec = str | Sequence[int] | Sequence[Sequence[float]]
TwistSymmetry = Literal["none", "time_reversal", "cubic"]

_HELP = (
    "give a grid of three positive integers such as [4, 4, 4], a list of vectors such as [[0.25, 0.25, 0.25]] "
    "(a fourth number is the weight), or one of the words baldereschi and random"
)

MOST_TWISTS = 10_000
"""Largest grid: far beyond what walkers can be given to, far below what memory holds."""

_TOLERANCE = 1e-9
# Fractions of one bin are the same twist. In a power of two, no fraction with a small denominator lies at a bin's edge.
_BINS = 2**30


@dataclass(frozen=True, eq=False)
class TwistGrid:
    """Twists with weights: the twist average of a quantity E is sum_t weights_t E(fractions_t).

    Attributes:
        fractions: float64, in (-1/2, 1/2]; the twist is k = 2 pi f / L.  # (T, 3)
        weights: float64, positive, with the sum one.  # (T,)
        is_random: every walker and sweep draws a twist of its own, uniform in (-1/2, 1/2]^3; `fractions` is then a
            single row of zeros that holds the place.
        symmetry: "none", or by which one twists stand for others.
        num_averaged: number of twists that these stand for, themselves included.
    """

    fractions: Tensor
    weights: Tensor
    is_random: bool = False
    symmetry: TwistSymmetry = "none"
    num_averaged: int = 1

    def __len__(self) -> int:
        return len(self.fractions)

    @property
    def is_gamma(self) -> bool:
        """Whether these are periodic boundary conditions."""
        return not self.is_random and len(self) == 1 and not self.fractions.any()

    def is_same_average(self, other: TwistGrid) -> bool:
        """Whether both average over the same twists with the same weights.

        f and -f count as one twist, and so do all of a cube's symmetry where one of the two is reduced by it.
        """
        if self.is_random or other.is_random:
            return self.is_random and other.is_random
        symmetry: TwistSymmetry = "cubic" if "cubic" in (self.symmetry, other.symmetry) else "time_reversal"
        (keys, weights), (others, other_weights) = (
            zip(*sorted(_totals(each, symmetry).items()), strict=True) for each in (self, other)
        )
        return keys == others and all(map(math.isclose, weights, other_weights))


def twist_grid(spec: TwistSpec, symmetry: TwistSymmetry = "none", shift: Sequence[float] = (0, 0, 0)) -> TwistGrid:
    """Twists and weights of a Monkhorst-Pack grid, of a list, of the mean-value point, or the mark of random twists.

    A grid [n_1, n_2, n_3] has the components (2 j - n - 1) / (2 n) + shift / n, j = 1 ... n. Without a shift [1, 1, 1]
    is Gamma alone and an even n leaves Gamma out.

    A symmetry keeps the first twist of each set of equivalent ones, with the sum of their weights:
        time_reversal: psi_-f = psi_f^* has the energy of psi_f, for any protons.
        cubic: time reversal, and the 48 operations of the cube: permutations of the components and changes of their
            signs. They leave the energy unchanged where the protons' density has the symmetry of the cube: in a cubic
            crystal, or in an average over the configurations of a fluid, not in a single configuration of a fluid.
    Nothing is assumed of a trained wavefunction: at a twist that is left out, the transformed wavefunction of the twist
    that is kept is a trial function with the same energy.

    Args:
        spec: three positive integers; or vectors of three numbers, or of four, the fourth being the relative weight;
            or "baldereschi", the single twist (1/4, 1/4, 1/4); or "random", drawn again in every sweep.
        symmetry: "none" (every twist of the grid or list), "time_reversal" or "cubic".
        shift: displacement of a grid in units of its spacings: half a spacing puts Gamma into an even grid.  # (3,)

    Raises:
        ValueError: spec is none of these, a weight is not positive, some vectors have a weight and some have none, a
            grid has more than MOST_TWISTS twists, the symmetry is unknown, or the shift is no vector or not of a grid.

    Source: H. J. Monkhorst and J. D. Pack, Phys. Rev. B 13, 5188 (1976), eq. 3; A. Baldereschi, Phys. Rev. B 7, 5212
    (1973), simple cubic lattice; C. Lin, F. H. Zong and D. M. Ceperley, Phys. Rev. E 64, 016702 (2001), random twists.
    """
    if symmetry not in get_args(TwistSymmetry):
        raise SettingError("twist_symmetry", symmetry, "is unknown", "give none, time_reversal or cubic")
    offsets = _offsets(shift)
    if _is_grid(spec):
        fractions, weights = _monkhorst_pack(spec, offsets)
    elif any(offsets):
        raise SettingError(
            "twist_shift",
            shift,
            "shifts a grid, but system.twists is not a grid",
            "set system.twist_shift to [0, 0, 0], or give system.twists as a grid such as [4, 4, 4]",
        )
    elif isinstance(spec, str) and spec == "random":
        return TwistGrid(torch.zeros(1, 3, dtype=torch.float64), torch.ones(1, dtype=torch.float64), is_random=True)
    elif isinstance(spec, str) and spec == "baldereschi":
        fractions, weights = torch.full((1, 3), 0.25, dtype=torch.float64), [1.0]
    else:
        fractions, weights = _listed(spec)
    fractions = _folded(fractions)
    first, totals = _merged(fractions, weights, symmetry)
    relative = torch.tensor(totals, dtype=torch.float64)
    return TwistGrid(fractions[first], relative / relative.sum(), symmetry=symmetry, num_averaged=len(fractions))


def _offsets(shift: Sequence[float]) -> list[float]:
    """The shift as three floats."""
    if not _is_numbers(shift) or len(shift) != 3 or not all(map(math.isfinite, shift)):
        raise SettingError(
            "twist_shift",
            shift,
            "is not a list of three finite numbers",
            "give fractions of the grid's spacing such as [0.5, 0.5, 0.5]",
        )
    return [float(x) for x in shift]


def _monkhorst_pack(counts: Sequence[int], offsets: list[float]) -> tuple[Tensor, list[float]]:
    """Twists of a grid  # (T, 3) and their equal weights."""
    sizes = [int(count) for count in counts]
    total = math.prod(sizes)
    if total > MOST_TWISTS:
        raise SettingError(
            "twists",
            counts,
            f"is a grid of {total} twists, more than {MOST_TWISTS}",
            "each needs proton walkers of its own: give a smaller one such as [4, 4, 4]",
        )
    moves = [offset / size for offset, size in zip(offsets, sizes, strict=True)]
    return torch.from_numpy(monkhorst_pack(sizes)) + torch.tensor(moves, dtype=torch.float64), [1.0] * total


def _listed(spec: TwistSpec) -> tuple[Tensor, list[float]]:
    """Twists of a list  # (T, 3) and their relative weights, the largest one."""
    if isinstance(spec, (str, bytes)) or not isinstance(spec, Sequence) or len(spec) == 0:
        raise SettingError("twists", spec, "is not a list", _HELP)
    vectors = [entry for entry in spec if _is_vector(entry)]
    if len(vectors) != len(spec):
        raise SettingError("twists", spec, "is no grid and no list of vectors", _HELP)
    if len({len(vector) for vector in vectors}) > 1:
        raise SettingError(
            "twists",
            spec,
            "has weights for some of its vectors only",
            "give all vectors a fourth number, the weight, or none",
        )
    weights = [float(vector[3]) if len(vector) == 4 else 1.0 for vector in vectors]
    for vector, weight in zip(vectors, weights, strict=True):
        if not (math.isfinite(weight) and weight > 0):
            raise SettingError(
                "twists",
                spec,
                f"has the weight {weight:g} in the vector {vector!r}",
                "the fourth number must be positive and finite: change it, or leave the vector out",
            )
    fractions = torch.tensor([[float(x) for x in vector[:3]] for vector in vectors], dtype=torch.float64)
    return fractions, [weight / max(weights) for weight in weights]


def _folded(twists: Tensor) -> Tensor:
    """Twists in (-1/2, 1/2], with the rounding errors about 0 and 1/2 taken off."""
    folded = (twists - torch.ceil(twists - 0.5 - _TOLERANCE)).clamp(max=0.5)
    return torch.where(folded.abs() < _TOLERANCE, 0.0, folded)


def _merged(fractions: Tensor, weights: list[float], symmetry: TwistSymmetry) -> tuple[list[int], list[float]]:
    """Number of the first twist of each set of equivalent ones, and the sums of the sets' weights.

    Equivalent twists have equal keys. Twists that differ by more than rounding may get different keys; both are kept
    then, and the average is right all the same.
    """
    if symmetry == "none":
        return list(range(len(fractions))), weights
    first: dict[tuple[int, ...], int] = {}
    totals: dict[tuple[int, ...], float] = {}
    for index, row in enumerate((fractions * _BINS).round().long().tolist()):
        key = _key(row, symmetry)
        first.setdefault(key, index)
        totals[key] = totals.get(key, 0.0) + weights[index]
    return list(first.values()), list(totals.values())


def _key(bins: Sequence[int], symmetry: TwistSymmetry) -> tuple[int, ...]:
    """The same for all twists that are equivalent, from the bins of the three fractions."""
    there, back = tuple(x % _BINS for x in bins), tuple(-x % _BINS for x in bins)
    # The 48 operations permute the components and change their signs: the sorted absolute values stand for all.
    return min(there, back) if symmetry == "time_reversal" else tuple(sorted(map(min, there, back)))


def _totals(twists: TwistGrid, symmetry: TwistSymmetry) -> dict[tuple[int, ...], float]:
    """Weight of each set of equivalent twists."""
    totals: dict[tuple[int, ...], float] = {}
    for row, weight in zip((twists.fractions * _BINS).round().long().tolist(), twists.weights.tolist(), strict=True):
        key = _key(row, symmetry)
        totals[key] = totals.get(key, 0.0) + weight
    return totals


def _is_grid(spec: object) -> TypeGuard[Sequence[int]]:
    """Whether spec is a list of three positive integers."""
    if isinstance(spec, (str, bytes)) or not isinstance(spec, Sequence) or len(spec) != 3:
        return False
    return all(isinstance(x, Integral) and not isinstance(x, bool) and int(x) > 0 for x in spec)


def _is_vector(entry: object) -> TypeGuard[Sequence[float]]:
    """Whether an entry is a list of three finite numbers, with or without a fourth number."""
    return _is_numbers(entry) and len(entry) in (3, 4) and all(math.isfinite(x) for x in entry[:3])


def _is_numbers(entry: object) -> TypeGuard[Sequence[float]]:
    """Whether an entry is a list of real numbers."""
    if isinstance(entry, (str, bytes)) or not isinstance(entry, Sequence):
        return False
    return all(isinstance(x, Real) and not isinstance(x, bool) for x in entry)
