"""The envelope of the geminal: plane waves with backflow, paired by a learned one-body Hamiltonian."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.forward import paired_plane_waves
from lightning_vfe.physics.state_point import WalkerStates
from lightning_vfe.physics.system import System

OPEN_SHELL = 2.0
"""beta times the distance of the chemical potential below the middle of the gap."""


class PlaneWaveEnvelope(nn.Module):
    r"""Phi_ij = sum_kk' exp[i (k + k_twist) . z_i] F_kk' exp[i (k' + k_twist) . z_j], up electron i, down j.

    z are the quasi-particle (backflow) positions, k the plane waves of the cell in whole shells, and

        F = f n O n^T f,    n = 1 / (1 + exp(beta (h_x - mu))),    O_kk' = delta_k,-k' + c/N sum_a e^{-i (k + k') x_a},
        h_kk' = |k + k_twist|^2/2 delta_kk' - 4 pi / L^3 sum_a e^{-i (k - k') x_a} / ((k - k')^2 + kappa^2)  (k != k').

    Without the potential, and with c = 0, these are pairs (k, -k) with the momentum occupations f of Xie et al., PRL
    131, 126501 (2023), learned per determinant and the first fixed to 1. The screened attraction of the protons makes
    it a mean-field state of this very configuration x: the determinant fills the N/2 lowest orbitals of h, and more
    where levels lie within 1/beta of the chemical potential mu (see fermi_function), so that open shells need no
    special case. At a twist the filled k are not pairs (k, -k); then O pairs the orbitals through the protons, which
    take up the momentum. Everything moves with the protons: |psi| does not change when all are shifted together.

    1/beta starts at a hundredth of the first level spacing of the empty cell, kappa^2 at Thomas and Fermi's
    4 k_F / pi, c at 0.3. With the density they scale as these do, 1/beta as rs^-2 and kappa^2 as 1/rs, and each of
    beta, kappa^2, c and f has a learned power of rs / rs_0 besides, which starts at zero.

    Args:
        system: the electrons.
        reference_rs: rs_0 in bohr.
        num_determinants: K.
        num_plane_waves: least number of plane waves; None takes N + 10. Whole shells are taken.
    """

    integers: Tensor
    opposite: Tensor

    def __init__(
        self, system: System, reference_rs: float, num_determinants: int, num_plane_waves: int | None = None
    ) -> None:
        super().__init__()
        cell, num_pairs = PeriodicCell(system.num_atoms, reference_rs), system.num_down
        count = cell.num_atoms + 10 if num_plane_waves is None else num_plane_waves
        if count < num_pairs:
            raise ValueError(f"wavefunction.num_plane_waves = {count} must be at least {num_pairs}, one for each pair")
        integers = cell.plane_waves(count)
        self.unit_length = system.cell.length
        self.num_pairs = num_pairs
        dtype = torch.get_default_dtype()
        self.register_buffer("integers", integers.to(dtype), persistent=False)
        opposite = (integers.unsqueeze(1) == -integers).all(-1)  # delta_k,-k'
        self.register_buffer("opposite", opposite.to(dtype), persistent=False)
        fermi_wavevector = (9.0 * math.pi / 4.0) ** (1.0 / 3.0) / cell.rs
        beta = 100.0 / (0.5 * (2.0 * math.pi / cell.length) ** 2)
        # Determinants must start different from each other.
        spread = torch.linspace(1.0, 0.5, num_determinants)
        self.log_beta = nn.Parameter(torch.log(beta * spread))
        self.log_screening = nn.Parameter(torch.full((num_determinants,), math.log(4.0 * fermi_wavevector / math.pi)))
        self.log_proton_pairing = nn.Parameter(torch.full((num_determinants,), math.log(0.3)))
        self.log_occupation = nn.Parameter(torch.zeros(num_determinants, len(integers) - 1))
        # Powers of rs / rs_0 of beta, kappa^2, c and f.
        self.beta_power = nn.Parameter(torch.zeros(num_determinants))
        self.screening_power = nn.Parameter(torch.zeros(num_determinants))
        self.proton_pairing_power = nn.Parameter(torch.zeros(num_determinants))
        self.occupation_power = nn.Parameter(torch.zeros(num_determinants, len(integers) - 1))

    def forward(self, z_up: Tensor, z_down: Tensor, protons: Tensor, states: WalkerStates, rs_ratio: Tensor) -> Tensor:
        """Phi (..., K, N/2, N/2), complex; positions (..., N/2, 3), protons (..., N, 3) in bohr."""
        return self.pair_functions(z_up, z_down, states, self.pairing(protons, states, rs_ratio))

    def pair_functions(self, z_up: Tensor, z_down: Tensor, states: WalkerStates, pairing: Tensor) -> Tensor:
        """Phi with a given F (..., K, k, k): that of `pairing`."""
        return paired_plane_waves(z_up, z_down, self.wavevectors(states), pairing)

    def wavevectors(self, states: WalkerStates) -> Tensor:
        """k + k_twist in 1/bohr (..., k, 3)."""
        return self._wavenumber(states)[..., None, None] * (self.integers + states.twist.unsqueeze(-2))

    def pairing(self, protons: Tensor, states: WalkerStates, rs_ratio: Tensor) -> Tensor:
        """F (..., K, k, k), complex symmetric, of protons (..., N, 3) in bohr and rs / rs_0 (...)."""
        log_ratio = torch.log(rs_ratio).unsqueeze(-1)  # (..., 1)
        phase = -self._wavenumber(states)[..., None, None] * (protons @ self.integers.T)
        wave = _plane_wave(phase).transpose(-2, -1).unsqueeze(-3)
        beta = torch.exp(self.log_beta + (2.0 + self.beta_power) * log_ratio)  # (..., K)
        filled = fermi_function(self._hamiltonian(wave, states, log_ratio), beta, self.num_pairs)
        strength = torch.exp(self.log_proton_pairing + self.proton_pairing_power * log_ratio) / protons.shape[-2]
        pairs = self.opposite + strength[..., None, None] * (wave @ wave.transpose(-2, -1))
        occupation = torch.exp(self.log_occupation + self.occupation_power * log_ratio.unsqueeze(-1))
        occupation = torch.cat([torch.ones_like(occupation[..., :1]), occupation], dim=-1)  # (..., K, k)
        return occupation.unsqueeze(-1) * (filled @ pairs @ filled.transpose(-2, -1)) * occupation.unsqueeze(-2)

    def _wavenumber(self, states: WalkerStates) -> Tensor:
        """2 pi / L in 1/bohr.  # (...)"""
        return (2.0 * math.pi / self.unit_length) / states.rs

    def _hamiltonian(self, wave: Tensor, states: WalkerStates, log_ratio: Tensor) -> Tensor:
        """h (..., K, k, k) in Ha, complex Hermitian, from exp(-i k x_a) (..., 1, k, N) and ln(rs / rs_0) (..., 1)."""
        structure = wave @ wave.mH  # sum_a exp[-i (k - k') x_a]
        squared = (self.integers.unsqueeze(1) - self.integers).square().sum(-1)  # (k, k)
        squared = self._wavenumber(states).square()[..., None, None, None] * squared  # (..., 1, k, k)
        kappa_squared = torch.exp(self.log_screening + (self.screening_power - 1.0) * log_ratio)  # (..., K)
        screened = 1.0 / (squared + kappa_squared[..., None, None])  # (..., K, k, k)
        screened = screened * (1.0 - torch.eye(squared.shape[-1], dtype=squared.dtype, device=squared.device))
        kinetic = torch.diag_embed(0.5 * self.wavevectors(states).square().sum(-1)).unsqueeze(-3)
        volume = (self.unit_length * states.rs)[..., None, None, None] ** 3
        return kinetic - 4.0 * math.pi / volume * structure * screened


def fermi_function(hamiltonian: Tensor, beta: Tensor, num_filled: int) -> Tensor:
    r"""1 / (1 + exp(beta (h - mu))) of Hermitian matrices (..., K, k, k), beta (..., K) in 1/Ha.

    mu lies OPEN_SHELL / beta below the middle between the last filled and the first empty level. A gap wider than
    1 / beta does not feel that. Where both belong to one degenerate shell their weight is small, so that configurations
    with many electrons in the shell, far more numerous, do not outweigh those with the right number.

    The derivative of an eigenvector diverges where levels meet, that of this function does not. It is taken to first
    order in the eigenbasis with the divided differences of the Fermi function f (Daleckii and Krein 1965):
    f(X)_mn = f(x_m) delta_mn + (f(x_m) - f(x_n)) / (x_m - x_n) X_mn. The off-diagonal X vanishes, its derivative does
    not, so that values and first derivatives are exact (second derivatives are not).
    """
    if num_filled == hamiltonian.shape[-1]:
        identity = torch.eye(num_filled, dtype=hamiltonian.dtype, device=hamiltonian.device)
        return identity.expand_as(hamiltonian)
    vectors = torch.linalg.eigh(hamiltonian.detach()).eigenvectors
    rotated = vectors.mH @ hamiltonian @ vectors
    levels = rotated.diagonal(dim1=-2, dim2=-1).real
    chemical_potential = 0.5 * (levels[..., num_filled - 1] + levels[..., num_filled]).unsqueeze(-1)
    reduced = beta.unsqueeze(-1) * (levels - chemical_potential) + OPEN_SHELL  # (..., K, k)
    x = reduced.detach()
    half_difference = 0.5 * (x.unsqueeze(-1) - x.unsqueeze(-2))
    # (f(a) - f(b)) / (a - b) = -[sinh(d) / d] / [4 cosh(a/2) cosh(b/2)], d = (a - b) / 2, without cancellation;
    # written with exponentials of negative numbers only.
    size = half_difference.abs().clamp(min=1e-6)
    sinh_ratio = -torch.expm1(-2.0 * size) / (2.0 * size)  # sinh(d) / d exp(-|d|)
    edges = torch.exp(-0.5 * x.abs())
    hyperbolic = (1.0 + edges.square()) / 2.0  # cosh(x/2) exp(-|x|/2)
    weight = torch.exp(size - 0.5 * (x.abs().unsqueeze(-1) + x.abs().unsqueeze(-2)))
    slopes = -0.25 * sinh_ratio * weight / (hyperbolic.unsqueeze(-1) * hyperbolic.unsqueeze(-2))
    off_diagonal = rotated - torch.diag_embed(rotated.diagonal(dim1=-2, dim2=-1))
    first_order = slopes * beta[..., None, None] * off_diagonal
    return vectors @ (torch.diag_embed(torch.sigmoid(-reduced)).to(rotated.dtype) + first_order) @ vectors.mH


def _plane_wave(phase: Tensor) -> Tensor:
    return torch.complex(torch.cos(phase), torch.sin(phase))
