"""Twists: phases exp(2 pi i f_d) that a wavefunction gains when an electron crosses the cell along d."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real

import torch
from ase.dft.kpoints import monkhorst_pack
from torch import Tensor

_HELP = "give a grid of three positive integers such as [4, 4, 4], or a list of vectors such as [[0.25, 0.25, 0.25]]"


def fractional_twists(spec: Sequence[int] | Sequence[Sequence[float]]) -> Tensor:
    """Fractional twists f of a Monkhorst-Pack grid or of a list; the twist is k = 2 pi f / L.

    A grid [n_1, n_2, n_3] has the components (2 j - n - 1) / (2 n), j = 1 ... n, of H. J. Monkhorst and J. D. Pack,
    Phys. Rev. B 13, 5188 (1976), eq. 3: [1, 1, 1] is Gamma alone, an even n leaves Gamma out. All twists weigh the same.

    Args:
        spec: three positive integers, or vectors of three numbers each.

    Returns:
        float64 fractions folded into (-1/2, 1/2].  # (T, 3)

    Raises:
        ValueError: spec is neither.
    """
    if isinstance(spec, (str, bytes)) or not isinstance(spec, Sequence) or len(spec) == 0:
        raise ValueError(f"system.twists = {spec!r} is not a list; {_HELP}")
    if len(spec) == 3 and all(_is_integer(entry) and entry > 0 for entry in spec):
        twists = torch.from_numpy(monkhorst_pack([int(entry) for entry in spec]))  # type: ignore[arg-type]
    elif all(_is_vector(entry) for entry in spec):
        twists = torch.tensor([list(entry) for entry in spec], dtype=torch.float64)  # type: ignore[arg-type]
    else:
        raise ValueError(f"system.twists = {spec!r} is no grid and no list of vectors; {_HELP}")
    # The sum with zero turns -0.0 into 0.0.
    return twists - torch.ceil(twists - 0.5) + 0.0


def _is_integer(entry: object) -> bool:
    return isinstance(entry, Integral) and not isinstance(entry, bool)


def _is_vector(entry: object) -> bool:
    """Whether an entry is a list of three finite numbers."""
    if isinstance(entry, (str, bytes)) or not isinstance(entry, Sequence) or len(entry) != 3:
        return False
    return all(isinstance(x, Real) and not isinstance(x, bool) and math.isfinite(x) for x in entry)
