"""A baseline and a correction: what Delta-learning sums."""

from __future__ import annotations

from torch import Tensor

from lightning_vfe.models.potential.potential import Potential
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.neighbors import NeighborList


class DeltaPotential(Potential):
    """E = E_baseline + E_correction. The baseline is not trained.

    Args:
        baseline: the potential to correct; it stays in evaluation mode, and its parameters get no gradients.
        correction: the potential that is trained on the difference.
    """

    def __init__(self, baseline: Potential, correction: Potential) -> None:
        super().__init__()
        self.baseline = baseline.requires_grad_(False).eval()
        self.correction = correction

    def train(self, mode: bool = True) -> DeltaPotential:
        """Set the correction's mode; the baseline is never trained."""
        super().train(mode)
        self.baseline.eval()
        return self

    def check(self, z: Tensor, cell: PeriodicCell) -> None:
        """Raise a ValueError if the shape of z, the density or the size of the cell does not fit both parts."""
        super().check(z, cell)
        self.baseline.check(z, cell)
        self.correction.check(z, cell)

    def energy(self, z: Tensor, cell: PeriodicCell, dilation: Tensor | None = None) -> Tensor:
        """E(z) in Ha (...) of protons (..., N, 3) in bohr; see `Potential.energy`."""
        self.check(z, cell)
        return self.baseline.energy(z, cell, dilation) + self.correction.energy(z, cell, dilation)

    def energy_of_pairs(self, pairs: NeighborList) -> Tensor:
        """E in Ha (...) of pairs that reach as far as the larger cutoff, if both parts are sums over pairs."""
        return self.baseline.energy_of_pairs(pairs) + self.correction.energy_of_pairs(pairs)
