"""psi_x(r) = e^J det G with orbitals of the atoms: the wavefunction of molecules at low density."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from typing_extensions import override

from lightning_vfe.models.wavefunction.backbone import near_zero
from lightning_vfe.models.wavefunction.fermi import fermi_function
from lightning_vfe.models.wavefunction.geminal import NeuralGeminal
from lightning_vfe.models.wavefunction.paired import PairedWavefunction
from lightning_vfe.physics.state_point import StatePoint, WalkerStates
from lightning_vfe.physics.system import System

ATOM = 1.0
"""Size of a hydrogen atom in bohr."""


class MolecularWavefunction(PairedWavefunction):
    r"""ln psi_x(r) = J + i k_twist . sum_i r_i + ln sum_K det[Phi_ij phi_ij], with one orbital on each proton.

        Phi_ij = sum_ab a(d_ia) F_ab a(d_jb),    up electron i, down electron j, protons a and b
        a(d)   = exp(-zeta d^2 / (c + d))
        F      = n n^T,    n = 1 / (1 + exp(beta (h_x - mu))),    h_ab = -t(d_ab) for a != b, 0 for a = b
        t(d)   = (1 + eta d + (eta d)^2 / 3) exp(-eta d)

    d is the smooth periodic distance. a has no slope at contact, so that the cusps are those of the Jastrow factor J.
    Before training, a times the part of e^J for the same proton is proportional to exp(-d): the hydrogen atom. h_x is a
    model of electrons that hop between the protons of this very configuration x; t is the overlap of two 1s orbitals.
    The determinant fills its N/2 lowest states, which are the bonds of molecules, and more where levels lie within
    1/beta of the chemical potential mu (`fermi_function`). J, the neural geminal phi_ij and the streams are those of
    `GeminalWavefunction`. psi gains the phase exp(2 pi i twist_d) when one electron moves by L along d.

    The orbitals have the size of an atom at every density, where the plane waves of `GeminalWavefunction` have that of
    the mean distance rs: use this one where rs is well above 1.4 bohr, the length of a bond. The twist enters the
    orbitals only by the common phase: at a twist, E before training is too high by k_twist^2 / 2 per electron.

    Args:
        system: nuclei and electrons; as many up as down.
        reference: state point whose rs is rs_0, as in `GeminalWavefunction`.
        num_determinants: K.
        num_layers: layers of the streams.
        single_width: features of a particle.
        pair_width: features of a pair.

    Raises:
        SettingError: different numbers of up and down electrons, or a size below 1.
    """

    def __init__(
        self,
        system: System,
        reference: StatePoint,
        num_determinants: int = 1,
        num_layers: int = 3,
        single_width: int = 32,
        pair_width: int = 16,
    ) -> None:
        super().__init__(system, reference, ATOM, num_determinants, num_layers, single_width, pair_width)
        self.orbitals = AtomicOrbitals(num_determinants, system.num_down)
        self.geminal = NeuralGeminal(num_determinants, single_width, pair_width)
        self.neural_jastrow = near_zero(single_width, 1)

    @override
    def cusp_scale(self, rs_ratio: Tensor) -> Tensor:
        """One: an atom has the same size at every density."""
        return torch.ones_like(rs_ratio)

    @override
    def pairing(self, protons: Tensor, distance: Tensor, states: WalkerStates) -> Tensor:
        """F of the orbitals, real."""
        return self.orbitals.pairing(distance)

    @override
    def pair_functions(
        self, electrons: Tensor, single: Tensor, distance: Tensor, states: WalkerStates, pairing: Tensor
    ) -> Tensor:
        """Pairs of orbitals on the protons."""
        envelope: Tensor = self.orbitals(distance, pairing)
        return envelope

    @override
    def phase(self, electrons: Tensor, states: WalkerStates) -> Tensor:
        """k_twist . sum_i r_i."""
        wavenumber = (2.0 * math.pi / (self.unit_length * states.rs)).unsqueeze(-1)
        return (electrons.sum(-2) * (wavenumber * states.twist)).sum(-1)


class AtomicOrbitals(nn.Module):
    """Phi of `MolecularWavefunction`: one orbital on each proton, paired by a model of hopping electrons.

    Args:
        num_determinants: K; each has its own zeta, c, eta and beta.
        num_pairs: N/2, the states that are filled.
    """

    def __init__(self, num_determinants: int, num_pairs: int) -> None:
        super().__init__()
        self.num_pairs = num_pairs
        start = math.log(math.expm1(ATOM))  # softplus(start) = 1
        # Determinants must start different from each other.
        spread = torch.linspace(1.0, 0.5, num_determinants)
        self.raw_exponent = nn.Parameter(torch.full((num_determinants,), start))
        self.raw_core = nn.Parameter(torch.full((num_determinants,), start))
        self.raw_hopping = nn.Parameter(torch.full((num_determinants,), start))
        self.log_beta = nn.Parameter(torch.log(20.0 * spread))

    def pairing(self, distance: Tensor) -> Tensor:
        """F (..., K, N, N) of the distances of the protons (..., N, N) in bohr."""
        num = distance.shape[-1]
        scaled = softplus(self.raw_hopping)[:, None, None] * distance.unsqueeze(-3)  # (..., K, N, N)
        others = 1.0 - torch.eye(num, dtype=distance.dtype, device=distance.device)
        hopping = -(1.0 + scaled + scaled.square() / 3.0) * torch.exp(-scaled) * others
        filled = fermi_function(hopping, self.log_beta.exp(), self.num_pairs)
        return filled @ filled.transpose(-2, -1)

    def forward(self, distance: Tensor, pairing: Tensor) -> Tensor:
        """Phi (..., K, N/2, N/2) of the distances electron-proton (..., N, N) in bohr and F (..., K, N, N)."""
        zeta, core = (softplus(raw)[:, None, None] for raw in (self.raw_exponent, self.raw_core))
        apart = distance.unsqueeze(-3)
        orbitals = torch.exp(-(zeta * apart.square() / (core + apart)))  # (..., K, N, N)
        up, down = orbitals[..., : self.num_pairs, :], orbitals[..., self.num_pairs :, :]
        left = torch.einsum("...ia,...ab->...ib", up, pairing)
        return torch.einsum("...ib,...jb->...ij", left, down)
