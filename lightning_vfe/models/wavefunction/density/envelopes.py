"""The pair functions Phi of the envelope in the electron density: of plane waves, or of orbitals on the protons."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from lightning_vfe.models.wavefunction.density.pairs import CENTRE, PairConstants, distances
from lightning_vfe.models.wavefunction.density.streams import Streams
from lightning_vfe.models.wavefunction.molecular import MolecularWavefunction
from lightning_vfe.models.wavefunction.wavefunction import GeminalWavefunction


class PlaneWavePairs(NamedTuple):
    """Of `GeminalWavefunction`; k is the number of plane waves, K that of determinants."""

    backflow: Tensor
    """pi / L times the shift of a state, by spin. # (2, 3, S)"""
    phases: Tensor
    """2 m of the plane waves, twice: for a cosine, and for a sine. # (3, 2 k)"""
    quarter: Tensor
    """pi / 2 for a cosine, zero for a sine. # (2 k,)"""
    pairing: Tensor
    """F of the envelope, complex, the determinants side by side. # (W, k, K k)"""

    @staticmethod
    def of(wavefunction: GeminalWavefunction, pairing: Tensor) -> PlaneWavePairs:
        """From F (W, K, k, k).

        The twist is left out: it multiplies the waves of each electron by one phase, which |psi| does not feel.
        """
        integers, length = wavefunction.envelope.integers, wavefunction.unit_length * wavefunction.reference_rs
        # The plane waves of angles that begin at CENTRE miss this phase.
        shift = 2.0 * CENTRE * integers.sum(-1)
        shift = torch.complex(torch.cos(shift), torch.sin(shift))
        pairing = shift.unsqueeze(-1) * pairing * shift
        phases = 2.0 * torch.stack([integers, integers], dim=-1)  # (k, 3, 2)
        quarter = torch.zeros_like(integers[:, :2])
        quarter[:, 0] += math.pi / 2.0
        return PlaneWavePairs(
            backflow=(wavefunction.backflow.weight * (math.pi / length)).repeat(2, 1, 1),
            phases=phases.transpose(0, 1).flatten(1).contiguous(),
            quarter=quarter.flatten(),
            pairing=pairing.transpose(1, 2).flatten(2).contiguous(),
        )

    def pair_functions(self, _: PairConstants, streams: Streams) -> Tensor:
        """Phi (w, n, K, n), complex, of the positions with backflow."""
        half, num_walkers = streams.electrons.shape[-2:]
        flat = streams.angles.view(3, 2, -1).transpose(0, 1)  # (2, 3, n w)
        z = torch.baddbmm(flat, self.backflow, streams.electrons.flatten(2))
        z = z.view(2, 3, half, num_walkers).permute(0, 3, 2, 1).contiguous().view(-1, 3)  # (2 w n, 3)
        waves = torch.addmm(self.quarter, z, self.phases).sin_()
        waves = torch.view_as_complex(waves.view(2, num_walkers, half, -1, 2))  # (2, w, n, k)
        num_waves, num_proton_walkers = waves.shape[-1], len(self.pairing)
        left = torch.bmm(waves[0].reshape(num_proton_walkers, -1, num_waves), self.pairing)  # (W, B n, K k)
        return torch.bmm(left.view(num_walkers, -1, num_waves), waves[1].mT).view(num_walkers, half, -1, half)


class AtomicPairs(NamedTuple):
    """Of `MolecularWavefunction`; K is the number of determinants."""

    exponent: Tensor
    """-zeta. # (K, 1, 1, 1)"""
    core: Tensor
    """c. # (K, 1, 1, 1)"""
    pairing: Tensor
    """F of the orbitals, real. # (W, K, N, N)"""

    @staticmethod
    def of(wavefunction: MolecularWavefunction, pairing: Tensor) -> AtomicPairs:
        """From F (W, K, N, N). The twist is left out: its phase is that of the whole psi."""
        raw = wavefunction.orbitals.raw_exponent, wavefunction.orbitals.raw_core
        exponent, core = (softplus(each).view(-1, 1, 1, 1) for each in raw)
        return AtomicPairs(-exponent, core, pairing)

    def pair_functions(self, pairs: PairConstants, streams: Streams) -> Tensor:
        """Phi (w, n, K, n), complex."""
        apart = distances(pairs, streams.angles)  # (N, N, w)
        orbitals = torch.exp(self.exponent * apart.square() / (self.core + apart))  # (K, N, N, w)
        num_proton_walkers, half = len(self.pairing), apart.shape[0] // 2
        by_walker = orbitals.unflatten(-1, (num_proton_walkers, -1)).permute(3, 0, 4, 1, 2)  # (W, K, B, N, N)
        up, down = by_walker[..., :half, :].contiguous(), by_walker[..., half:, :].contiguous()
        matrices = self.pairing.flatten(0, 1)  # (W K, N, N)
        left = torch.bmm(up.view(len(matrices), -1, 2 * half), matrices).view(-1, half, 2 * half)  # (W K B, n, N)
        found = torch.bmm(left, down.view(left.shape).mT).view(*up.shape[:3], half, half)
        found = found.permute(0, 2, 3, 1, 4).flatten(0, 1)
        return found.to(found.dtype.to_complex())


Envelope = PlaneWavePairs | AtomicPairs
