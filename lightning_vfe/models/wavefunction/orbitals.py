"""The envelope of the geminal: plane waves with backflow, paired by a learned one-body Hamiltonian."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightning_vfe.errors import SettingError
from lightning_vfe.forward_laplacian import paired_plane_waves
from lightning_vfe.models.wavefunction.fermi import fermi_function
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.state_point import WalkerStates
from lightning_vfe.physics.system import System

OPEN_SHELLS = ("s", "d")
"""How the pairs of electrons in a degenerate open shell are put together."""


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

    A crystal takes up reciprocal lattice vectors only, so that at a twist its filled orbitals find no partner there.
    For fixed protons (system.protons) at a twist each orbital is therefore paired with itself, with proton 1 at the
    origin: O_kk' = delta_kk' exp(-2 i k x_1) in place of delta_k,-k'. The pairs of electrons then have different
    momenta. This is no loss in a Slater determinant, which such pairs make up as well, but psi changes when lattice
    sites are exchanged: for protons that stay.

    1/beta starts at a hundredth of the first level spacing of the empty cell, kappa^2 at Thomas and Fermi's
    4 k_F / pi, c at 0.3. With the density they scale as these do, 1/beta as rs^-2 and kappa^2 as 1/rs, and each of
    beta, kappa^2, c and f has a learned power of rs / rs_0 besides, which starts at zero.

    In a crystal the highest filled shell can stay degenerate and open. There all pairs have the same sign (open_shell
    "s"), the state of highest energy: the exchange integrals between the orbitals of the shell are positive, and a sum
    of pairs (k, -k) with weights w_k has the energy sum_kl w_k K_kl w_l. With "d" the entries of F in that shell are
    multiplied by (g_k + g_k')/2, g_k = (k_x^2 - k_y^2) / k^2 over its largest value, so that the weights of the pairs
    add up to zero (see open_shell_weights). Such a wavefunction is one of two that cubic rotations mix; for Gamma.

    Args:
        system: the electrons.
        reference_rs: rs_0 in bohr.
        num_determinants: K.
        num_plane_waves: least number of plane waves; None takes N + 10. Whole shells are taken.
        open_shell: "s" or "d".

    Raises:
        ValueError: too few plane waves, or an open shell that is unknown or not possible.
    """

    integers: Tensor
    opposite: Tensor
    pair_weights: Tensor | None

    def __init__(
        self,
        system: System,
        reference_rs: float,
        num_determinants: int,
        num_plane_waves: int | None = None,
        open_shell: str = "s",
    ) -> None:
        super().__init__()
        cell, num_pairs = PeriodicCell(system.num_atoms, reference_rs), system.num_down
        count = cell.num_atoms + 10 if num_plane_waves is None else num_plane_waves
        if count < num_pairs:
            raise SettingError("num_plane_waves", count, f"must be at least {num_pairs}, one for each pair")
        integers = cell.plane_waves(count)
        self.unit_length = system.cell.length
        self.num_pairs = num_pairs
        self.fixed_protons = system.protons == "fixed"
        dtype = torch.get_default_dtype()
        self.register_buffer("integers", integers.to(dtype), persistent=False)
        opposite = (integers.unsqueeze(1) == -integers).all(-1)  # delta_k,-k'
        self.register_buffer("opposite", opposite.to(dtype), persistent=False)
        if open_shell not in OPEN_SHELLS:
            raise SettingError("open_shell", open_shell, "is unknown", f"choose {' or '.join(OPEN_SHELLS)}")
        weights = open_shell_weights(integers.to(dtype), num_pairs) if open_shell == "d" else None
        self.register_buffer("pair_weights", weights, persistent=False)
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
        values: Tensor = paired_plane_waves(z_up, z_down, self.wavevectors(states), pairing)
        return values

    def wavevectors(self, states: WalkerStates) -> Tensor:
        """k + k_twist in 1/bohr (..., k, 3)."""
        return self._wavenumber(states)[..., None, None] * (self.integers + states.twist.unsqueeze(-2))

    def pairing(self, protons: Tensor, states: WalkerStates, rs_ratio: Tensor) -> Tensor:
        """F (..., K, k, k), complex symmetric, of protons (..., N, 3) in bohr and rs / rs_0 (...)."""
        return self.occupied(self.orbital_pairs(protons, states, self.log_strengths(rs_ratio)), rs_ratio)

    def log_strengths(self, rs_ratio: Tensor) -> Tensor:
        """ln beta, ln kappa^2 and ln c at rs / rs_0 (...).  # (3, ..., K)"""
        log_ratio = torch.log(rs_ratio).unsqueeze(-1)  # (..., 1)
        log_beta = self.log_beta + (2.0 + self.beta_power) * log_ratio
        log_screening = self.log_screening + (self.screening_power - 1.0) * log_ratio
        return torch.stack([log_beta, log_screening, self.log_proton_pairing + self.proton_pairing_power * log_ratio])

    def orbital_pairs(self, protons: Tensor, states: WalkerStates, log_strengths: Tensor) -> Tensor:
        """n O n^T (..., K, k, k) of protons (..., N, 3) in bohr, with the weights of an open shell."""
        beta, kappa_squared, strength = log_strengths.exp()
        phase = -self._wavenumber(states)[..., None, None] * (protons @ self.integers.T)
        wave = _plane_wave(phase).transpose(-2, -1).unsqueeze(-3)  # (..., 1, k, N)
        filled = fermi_function(self._hamiltonian(wave, states, kappa_squared), beta, self.num_pairs)
        share = (strength / protons.shape[-2])[..., None, None]
        partners = self._partners(wave, states) + share * (wave @ wave.transpose(-2, -1))
        pairs: Tensor = filled @ partners @ filled.transpose(-2, -1)
        return pairs if self.pair_weights is None else self.pair_weights * pairs

    def occupied(self, pairs: Tensor, rs_ratio: Tensor) -> Tensor:
        """f pairs f with the occupations f at rs / rs_0 (...).  # (..., K, k, k) -> (..., K, k, k)"""
        log_ratio = torch.log(rs_ratio)[..., None, None]
        occupation = torch.exp(self.log_occupation + self.occupation_power * log_ratio)
        occupation = torch.cat([torch.ones_like(occupation[..., :1]), occupation], dim=-1)  # (..., K, k)
        return occupation.unsqueeze(-1) * pairs * occupation.unsqueeze(-2)

    def _partners(self, wave: Tensor, states: WalkerStates) -> Tensor:
        """delta_k,-k', or delta_kk' exp(-2 i k x_1) of fixed protons at a twist, from exp(-i k x_a) (..., 1, k, N)."""
        if not self.fixed_protons:
            return self.opposite
        own = torch.diag_embed(wave[..., 0].square())
        return torch.where((states.twist == 0.0).all(-1)[..., None, None, None], self.opposite.to(own.dtype), own)

    def _wavenumber(self, states: WalkerStates) -> Tensor:
        """2 pi / L in 1/bohr.  # (...)"""
        return (2.0 * math.pi / self.unit_length) / states.rs

    def _hamiltonian(self, wave: Tensor, states: WalkerStates, kappa_squared: Tensor) -> Tensor:
        """h (..., K, k, k) in Ha, complex Hermitian, from exp(-i k x_a) (..., 1, k, N) and kappa^2 (..., K)."""
        structure = wave @ wave.mH  # sum_a exp[-i (k - k') x_a]
        squared = (self.integers.unsqueeze(1) - self.integers).square().sum(-1)  # (k, k)
        squared = self._wavenumber(states).square()[..., None, None, None] * squared  # (..., 1, k, k)
        screened = 1.0 / (squared + kappa_squared[..., None, None])  # (..., K, k, k)
        screened = screened * (1.0 - torch.eye(squared.shape[-1], dtype=squared.dtype, device=squared.device))
        kinetic = torch.diag_embed(0.5 * self.wavevectors(states).square().sum(-1)).unsqueeze(-3)
        volume = (self.unit_length * states.rs)[..., None, None, None] ** 3
        return kinetic - 4.0 * math.pi / volume * structure * screened


def open_shell_weights(integers: Tensor, num_pairs: int) -> Tensor:
    """(g_k + g_k')/2 inside the open shell of free electrons, 1 elsewhere; all ones where the shells are closed.

    g_k = (k_x^2 - k_y^2) / max |k_x^2 - k_y^2| of the shell: pairs with the symmetry of a d wave.

    Args:
        integers: k in units of 2 pi / L.  # (k, 3)
        num_pairs: N/2, the plane waves that are filled.

    Returns:
        Factors of F, symmetric.  # (k, k)

    Raises:
        ValueError: the d wave leaves fewer plane waves of the shell than it has pairs.
    """
    squared = integers.square().sum(-1)
    last = squared.sort().values[num_pairs - 1]
    below, shell = int((squared < last).sum()), squared == last
    if below + int(shell.sum()) == num_pairs:
        return torch.ones(len(integers), len(integers), dtype=integers.dtype)
    wave = integers[:, 0].square() - integers[:, 1].square()
    inside = wave * shell
    if int((inside != 0).sum()) < num_pairs - below:
        left, needed = int((inside != 0).sum()), num_pairs - below
        reason = (
            f"leaves {left} of the {int(shell.sum())} plane waves of the open shell, too few for its {needed} pairs"
        )
        raise SettingError("open_shell", "d", reason, "choose open_shell=s")
    inside = inside / inside.abs().max()
    both = shell.unsqueeze(-1) & shell
    return torch.where(both, 0.5 * (inside.unsqueeze(-1) + inside), torch.ones_like(inside))


def _plane_wave(phase: Tensor) -> Tensor:
    return torch.complex(torch.cos(phase), torch.sin(phase))
