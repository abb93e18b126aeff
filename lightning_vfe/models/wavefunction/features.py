"""Smooth periodic features of pairs of particles: what the networks of the wavefunction see of a relative vector."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_vfe.forward_laplacian import join_features, relative_vectors
from lightning_vfe.physics.cell import periodic_waves, smooth_distance

NUM_PAIR_FEATURES = 7


class PairGeometry(NamedTuple):
    """What is known of all pairs between two sets of particles."""

    distance: Tensor
    """Smooth periodic distance in bohr, |r| for close pairs. # (..., M, N)"""
    features: Tensor
    """Inputs of the pair stream. # (..., M, N, 7)"""


def pair_geometry(length: Tensor, first: Tensor, second: Tensor, same_particles: bool = False) -> PairGeometry:
    """Distances and features of all pairs of `first` (..., M, 3) and `second` (..., N, 3), positions in bohr.

    The features of the relative vector r are sin(2 pi r/L), cos(2 pi r/L) and d^2/(1 + d) with the smooth distance d.
    All have zero slope in |r| at r = 0 (odd powers start at d^3), so that the cusps of the wavefunction are those of
    the Jastrow factor alone and the local energy stays bounded as two particles meet.

    With `same_particles` the diagonal is not a pair; it gets a constant vector instead of 0, because the derivative
    of a norm does not exist there. Whoever sums over pairs leaves the diagonal out.

    Args:
        length: edge L of the cell in bohr, of every configuration.  # (...)
        first: positions in bohr.  # (..., M, 3)
        second: positions in bohr.  # (..., N, 3)
        same_particles: whether both are the same particles.
    """
    displacement = relative_vectors(first, second)  # (..., M, N, 3)
    length = length[..., None, None]  # (..., 1, 1)
    if same_particles:
        diagonal = torch.eye(first.shape[-2], dtype=first.dtype, device=first.device)
        displacement = displacement + (0.5 * length * diagonal).unsqueeze(-1)
    distance = smooth_distance(displacement, length)
    radial = distance.square() / (1.0 + distance)
    return PairGeometry(distance, join_features([*periodic_waves(displacement, length), radial.unsqueeze(-1)]))
