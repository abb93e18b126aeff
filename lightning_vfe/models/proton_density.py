"""p(x): the base density pulled back through the flow, with one log_prob."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from lightning_vfe.models.base.boltzmann import BoltzmannBase
from lightning_vfe.models.base.uniform import UniformBase
from lightning_vfe.models.flow.equivariant_flow import EquivariantFlow


class ProtonTerms(NamedTuple):
    """Everything that p(x) is made of, for proton walkers (...)."""

    log_prob: Tensor
    """ln p(x) = ln p_base(z) + ln|det dz/dx|, in bohr^(-3N). # (...)"""
    base_energy: Tensor
    """E_ML(z) in Ha, whole cell. # (...)"""
    log_abs_det_dzdx: Tensor  # (...)
    sign_det_dzdx: Tensor
    """+1 everywhere for an invertible map; p(x) is not normalised where it is -1. # (...)"""
    z: Tensor
    """Base protons in bohr, not wrapped. # (..., N, 3)"""


class ProtonDensity(nn.Module):
    """ln p(x) = ln p_base(z) + ln|det dz/dx| with z = flow.to_base(x), normalised over ordered protons in the cell."""

    def __init__(self, base: UniformBase | BoltzmannBase, flow: EquivariantFlow) -> None:
        super().__init__()
        self.base = base
        self.flow = flow

    def evaluate(self, x: Tensor) -> ProtonTerms:
        """All terms of protons x (..., N, 3) in bohr."""
        z, log_abs_det, sign = self.flow.to_base(x)
        energy = self.base.energy(z)  # once: it may be an expensive network
        return ProtonTerms(self.base.log_prob(z, energy) + log_abs_det, energy, log_abs_det, sign, z)

    def log_prob(self, x: Tensor) -> Tensor:
        """ln p(x) (...) of protons x (..., N, 3) in bohr."""
        return self.evaluate(x).log_prob
