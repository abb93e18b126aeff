"""Twists: phases exp(2 pi i f_d) that a wavefunction gains when an electron crosses the cell along d."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import TypeGuard

import torch
from ase.dft.kpoints import monkhorst_pack
from torch import Tensor

_HELP = "give a grid of three positive integers such as [4, 4, 4], or a list of vectors such as [[0.25, 0.25, 0.25]]"

MOST_TWISTS = 10_000
"""Largest grid: far beyond what walkers can be given to, far below what memory holds."""


def fractional_twists(spec: Sequence[int] | Sequence[Sequence[float]]) -> Tensor:
    """Fractional twists f of a Monkhorst-Pack grid or of a list; the twist is k = 2 pi f / L.

    A grid [n_1, n_2, n_3] has the components (2 j - n - 1) / (2 n), j = 1 ... n, of H. J. Monkhorst and J. D. Pack,
    Phys. Rev. B 13, 5188 (1976), eq. 3: [1, 1, 1] is Gamma alone, an even n leaves Gamma out. All weights are equal.

    Args:
        spec: three positive integers, or vectors of three numbers each.

    Returns:
        float64 fractions folded into (-1/2, 1/2].  # (T, 3)

    Raises:
        ValueError: spec is neither, or a grid of more than MOST_TWISTS.
    """
    if isinstance(spec, (str, bytes)) or not isinstance(spec, Sequence) or len(spec) == 0:
        raise ValueError(f"system.twists = {spec!r} is not a list; {_HELP}")
    counts = [int(entry) for entry in spec if _is_count(entry)]
    vectors = [[float(x) for x in entry] for entry in spec if _is_vector(entry)]
    if len(counts) == len(spec) == 3:
        if math.prod(counts) > MOST_TWISTS:
            raise ValueError(
                f"system.twists = {spec!r} is a grid of {math.prod(counts)} twists, more than {MOST_TWISTS}; "
                "each needs proton walkers of its own: give a smaller one such as [4, 4, 4]"
            )
        twists = torch.from_numpy(monkhorst_pack(counts))
    elif len(vectors) == len(spec):
        twists = torch.tensor(vectors, dtype=torch.float64)
    else:
        raise ValueError(f"system.twists = {spec!r} is no grid and no list of vectors; {_HELP}")
    # The sum with zero turns -0.0 into 0.0.
    return twists - torch.ceil(twists - 0.5) + 0.0


def _is_count(entry: object) -> TypeGuard[int]:
    """Whether an entry is a positive integer."""
    return isinstance(entry, Integral) and not isinstance(entry, bool) and int(entry) > 0


def _is_vector(entry: object) -> TypeGuard[Sequence[float]]:
    """Whether an entry is a list of three finite numbers."""
    if isinstance(entry, (str, bytes)) or not isinstance(entry, Sequence) or len(entry) != 3:
        return False
    return all(isinstance(x, Real) and not isinstance(x, bool) and math.isfinite(x) for x in entry)
