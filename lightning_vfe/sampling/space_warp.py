"""Space warp: electrons that follow their protons."""

from __future__ import annotations

from torch import Tensor

from lightning_vfe.physics.cell import PeriodicCell


def space_warp(cell: PeriodicCell, electrons: Tensor, protons: Tensor, displacement: Tensor) -> Tensor:
    """Shift of the electrons that follows the protons,

        dr_i = sum_a w_a(r_i) dx_a,    w_a(r) = d(r, x_a)^-4 / sum_b d(r, x_b)^-4,

    with the smooth periodic distance d, in the cell's unit of length: an electron next to a proton moves with it, one
    between two with their mean.

    Args:
        cell: the periodic cell.
        electrons: # (W, B, N, 3)
        protons: before their move.  # (W, N, 3)
        displacement: of the protons, not wrapped.  # (W, N, 3)

    Returns:
        Shift.  # (W, B, N, 3)

    Source: Umrigar, Int. J. Quantum Chem. Symp. 23, 217 (1989); Filippi and Umrigar, Phys. Rev. B 61, R16291 (2000).
    """
    distance = cell.smooth_distance(electrons[..., :, None, :] - protons[:, None, None])  # (W, B, N, N)
    # The small constant keeps the weights finite when an electron sits on a proton.
    weight = (distance.square() + (1e-6 * cell.length) ** 2) ** -2
    weight = weight / weight.sum(dim=-1, keepdim=True)
    return weight @ displacement[:, None]
