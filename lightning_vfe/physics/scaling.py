"""How far psi is from stationary under a change of the density: the virial pressure against -dE/dV."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_vfe.physics.chunking import map_chunks, max_chunk_elements
from lightning_vfe.physics.local_energy import LogPsi
from lightning_vfe.physics.state_point import WalkerStates
from lightning_vfe.physics.units import HARTREE_PER_BOHR3_TO_GPA

STEP = 1e-3
"""Of ln rs in the central difference, whose error is of the order STEP^2."""
FEATURES = 32
"""Of a pair, for the size of a chunk."""


@torch.no_grad()
def virial_excess(
    log_psi: LogPsi, protons: Tensor, electrons: Tensor, states: WalkerStates, total: Tensor, num_atoms: int
) -> Tensor:
    r"""Virial pressure minus -dE/dV, where E is the energy of psi with these parameters, in GPa.  # (W,)

    With lengths in units of rs, H = T / rs^2 + V / rs, and the energy of psi changes with the density by

        dE/d ln rs = -(2K + V) + G,        G = 2 Re Cov(E_loc, d ln psi / d ln rs),

    the derivative at fixed positions in units of rs. The virial pressure (2K + V) / 3L^3 lacks G, and exceeds -dE/dV by
    G / 3L^3. An eigenstate has G = 0 without any noise, since its E_loc is constant.

    The covariance is that over the electron walkers of each proton walker, without bias.

    Args:
        log_psi: see LogPsi.
        protons: in bohr.  # (W, N, 3)
        electrons: in bohr.  # (W, B, N, 3), B of at least 2
        states: of each proton walker.  # (W,)
        total: complex E_loc of the whole cell in Ha.  # (W, B)
        num_atoms: N.
    """
    up, down = (_stretched(log_psi, protons, electrons, states, math.exp(sign * STEP)) for sign in (1.0, -1.0))
    difference = up - down
    # the phase of psi is known up to 2 pi
    phase = torch.remainder(difference.imag + math.pi, 2.0 * math.pi) - math.pi
    slope = torch.complex(difference.real, phase) / (2.0 * STEP)  # (W, B)
    products = (_centred(total).conj() * _centred(slope)).real
    covariance = 2.0 * products.sum(1) / (total.shape[1] - 1)
    volume = 4.0 * math.pi * num_atoms / 3.0 * states.rs**3
    return covariance / (3.0 * volume) * HARTREE_PER_BOHR3_TO_GPA


def _stretched(log_psi: LogPsi, protons: Tensor, electrons: Tensor, states: WalkerStates, factor: float) -> Tensor:
    """ln psi (W, B) with the cell and all particles stretched by a factor."""

    def stretch(x: Tensor, r: Tensor, rs: Tensor, kT: Tensor, twist: Tensor) -> tuple[Tensor]:
        point = WalkerStates(rs[..., 0, 0] * factor, kT[..., 0, 0], twist.squeeze(-2))
        return (log_psi(x * factor, r * factor, point),)

    limit = max(1, max_chunk_elements(electrons) // (FEATURES * electrons.shape[-2] ** 2))
    parts = states.rs[:, None, None, None], states.kT[:, None, None, None], states.twist[:, None, None]
    return map_chunks(stretch, limit, protons.unsqueeze(1), electrons, *parts)[0]


def _centred(values: Tensor) -> Tensor:
    return values - values.mean(1, keepdim=True)
