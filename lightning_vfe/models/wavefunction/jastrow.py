"""The Jastrow factor that carries the exact cusps of the wavefunction."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from lightning_vfe.physics.system import System

ELECTRON_PROTON_CUSP = -1.0
OPPOSITE_SPIN_CUSP = 0.5
SAME_SPIN_CUSP = 0.25


class CuspJastrow(nn.Module):
    r"""J = sum_pairs u_c(d), with the smooth periodic distance d and the slope at contact u_c'(0) = c (Kato).

    u_c(d) = -c b^2 / (b + d), c = -1 for an electron and a proton, 1/2 for electrons of opposite and 1/4 of the same
    spin (Kato, Commun. Pure Appl. Math. 10, 151 (1957); Pack and Byers Brown, J. Chem. Phys. 45, 556 (1966)). The three
    ranges b (bohr) are learned, start at rs, the mean distance of the particles, and scale with rs:

        b = rs / rs_0 softplus(raw + slope ln(rs / rs_0)),    slope = 0 at the start.

    Args:
        system: the electrons.
        reference_rs: rs_0 in bohr.
    """

    same_spin: Tensor
    opposite_spin: Tensor

    def __init__(self, system: System, reference_rs: float) -> None:
        super().__init__()
        raw = reference_rs + math.log(-math.expm1(-reference_rs))  # softplus(raw) = rs_0
        self.raw_ranges = nn.Parameter(torch.full((3,), raw))
        self.range_slopes = nn.Parameter(torch.zeros(3))
        same_spin, opposite_spin = _spin_pairs(system)
        self.register_buffer("same_spin", same_spin, persistent=False)
        self.register_buffer("opposite_spin", opposite_spin, persistent=False)

    def forward(self, electron_proton: Tensor, electron_electron: Tensor, rs_ratio: Tensor) -> Tensor:
        """J (...) of the distances electron-proton and electron-electron, both (..., N, N), in bohr.

        rs_ratio is rs / rs_0.  # (...)
        """
        log_ratio = torch.log(rs_ratio)[..., None, None, None]
        ranges = rs_ratio[..., None, None, None] * softplus(self.raw_ranges + self.range_slopes * log_ratio)
        b_proton, b_opposite, b_same = ranges.unbind(-1)  # (..., 1, 1) each
        attraction = _cusp(electron_proton, ELECTRON_PROTON_CUSP, b_proton)
        opposite = _cusp(electron_electron, OPPOSITE_SPIN_CUSP, b_opposite) * self.opposite_spin
        same = _cusp(electron_electron, SAME_SPIN_CUSP, b_same) * self.same_spin
        return (attraction + opposite + same).sum((-2, -1))


class PlasmonJastrow(nn.Module):
    r"""J = sum_pairs u_c(d) of electrons in a uniform background, with their cusps at contact and plasmons far away.

    u_c(d) = -c b^2 / (b + d) as in `CuspJastrow`, with the range b = e^s / sqrt(c omega_p). At the start s = 0, and
    both kinds of pairs have the tail -1 / (omega_p d) of the zero-point motion of plasmons, omega_p^2 = 3 / rs^3
    (Bohm and Pines, Phys. Rev. 92, 609 (1953)). One s for each kind is learned.

    Args:
        system: the electrons.
    """

    same_spin: Tensor
    opposite_spin: Tensor

    def __init__(self, system: System) -> None:
        super().__init__()
        self.log_scales = nn.Parameter(torch.zeros(2))
        same_spin, opposite_spin = _spin_pairs(system)
        self.register_buffer("same_spin", same_spin, persistent=False)
        self.register_buffer("opposite_spin", opposite_spin, persistent=False)

    def forward(self, distance: Tensor, rs: Tensor) -> Tensor:
        """J (...) of the distances (..., N, N) in bohr; rs (...) in bohr."""
        per_frequency = (rs**1.5 / math.sqrt(3.0))[..., None, None]  # 1 / omega_p
        opposite, same = self.log_scales.exp().unbind()
        reach_opposite = opposite * torch.sqrt(per_frequency / OPPOSITE_SPIN_CUSP)
        reach_same = same * torch.sqrt(per_frequency / SAME_SPIN_CUSP)
        of_opposite = _cusp(distance, OPPOSITE_SPIN_CUSP, reach_opposite) * self.opposite_spin
        return (of_opposite + _cusp(distance, SAME_SPIN_CUSP, reach_same) * self.same_spin).sum((-2, -1))


def _spin_pairs(system: System) -> tuple[Tensor, Tensor]:
    """1 for pairs i < j of the same spin, and of opposite spin; 0 elsewhere.  # (N, N) each"""
    spin = torch.cat([torch.ones(system.num_up or 0), -torch.ones(system.num_down)])
    same_spin = spin.unsqueeze(0) == spin.unsqueeze(1)
    upper = torch.triu(torch.ones_like(same_spin), diagonal=1)  # every pair once
    return tuple((kind & upper).to(torch.get_default_dtype()) for kind in (same_spin, ~same_spin))  # type: ignore[return-value]


def _cusp(distance: Tensor, slope: float, reach: Tensor) -> Tensor:
    return -slope * reach.square() / (reach + distance)
