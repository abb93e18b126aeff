"""What a flow gives for a batch of walkers."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class FlowResult(NamedTuple):
    """Where the map sends the protons, and how it changes volumes."""

    z: Tensor
    """Base coordinates in bohr, not wrapped: moving a proton by a lattice vector moves its z by it. # (..., N, 3)"""
    log_abs_det_dzdx: Tensor
    """ln|det dz/dx| of the 3N x 3N Jacobian. # (...)"""
    sign_det_dzdx: Tensor
    """+1 where the map keeps the orientation of space. A -1 anywhere means that it folds, and that the density is not
    normalised: see `EquivariantFlow`. # (...)"""


class InverseResult(NamedTuple):
    """Protons whose base coordinates are given, with the proof that they are."""

    x: Tensor
    """Protons in bohr, not wrapped: moving a z by a lattice vector moves its x by it. # (..., N, 3)"""
    converged: Tensor
    """Whether the residual is within the tolerance; the x of other walkers mean nothing. # (...)"""
    residual: Tensor
    """|to_base(x) - z| in bohr, over all coordinates of a walker. # (...)"""
