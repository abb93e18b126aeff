"""Plane waves with backflow, paired with opposite momenta: the envelope of the geminal."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightning_vfe.physics.cell import PeriodicCell


class PlaneWaveEnvelope(nn.Module):
    r"""Phi_ij = sum_k f_k exp[i (k + k_twist) . z_i] exp[i (-k + k_twist) . z_j] for up electron i and down electron j.

    z are the quasi-particle (backflow) positions, k the plane waves of the cell in whole shells. The momentum
    occupations f are learned per determinant, the first fixed to 1 (Xie et al., PRL 131, 126501 (2023)). They start
    at the Fermi sea: 1 in full shells, sqrt(filling) in the open shell, small above. Pairing k with -k keeps the total
    momentum the same in every term of the determinant, so that |psi| does not change when all particles are shifted.
    """

    integers: Tensor

    def __init__(self, cell: PeriodicCell, num_determinants: int, num_plane_waves: int | None = None) -> None:
        super().__init__()
        num_pairs = cell.num_atoms // 2
        integers = cell.plane_waves(num_pairs + 1 if num_plane_waves is None else num_plane_waves)
        if len(integers) < num_pairs:
            raise ValueError(
                f"wavefunction.num_plane_waves = {num_plane_waves} must be at least the number of electron pairs, {num_pairs}"
            )
        self.wavenumber = 2.0 * math.pi / cell.length
        self.register_buffer("integers", integers.to(torch.get_default_dtype()), persistent=False)
        start = _fermi_sea(integers, num_pairs)[1:]
        noise = 1.0 + 0.02 * torch.randn(num_determinants, len(start))  # determinants must start different
        self.occupation = nn.Parameter(start * noise)

    def forward(self, z_up: Tensor, z_down: Tensor, twist: Tensor) -> Tensor:
        """Phi (..., K, N/2, N/2), complex; positions (..., N/2, 3) in bohr, fractional twist (..., 3)."""
        occupation = torch.cat([torch.ones_like(self.occupation[:, :1]), self.occupation], dim=1)  # (K, k)
        twist = twist.unsqueeze(-2)
        up = _plane_wave(self.wavenumber * (z_up @ self.integers.T + (z_up * twist).sum(-1, keepdim=True)))
        down = _plane_wave(self.wavenumber * ((z_down * twist).sum(-1, keepdim=True) - z_down @ self.integers.T))
        weighted = up.unsqueeze(-3) * occupation.unsqueeze(-2)  # (..., K, N/2, k)
        return weighted @ down.unsqueeze(-3).transpose(-2, -1)


def _plane_wave(phase: Tensor) -> Tensor:
    return torch.complex(torch.cos(phase), torch.sin(phase))


def _fermi_sea(integers: Tensor, num_pairs: int) -> Tensor:
    """Starting occupations (k,): shells fill in order, N/2 states in all."""
    start = torch.full((len(integers),), 0.02)
    energies = integers.square().sum(-1)
    left = num_pairs
    for energy in energies.unique(sorted=True):
        shell = energies == energy
        if left > 0:
            start[shell] = math.sqrt(min(1.0, left / int(shell.sum())))
        left -= int(shell.sum())
    return start
