"""Derivatives by the parameters of the envelope, from those by the elements of its pairing matrix."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor

from lightning_vfe.models.wavefunction.orbitals import PlaneWaveEnvelope
from lightning_vfe.physics.state_point import WalkerStates

FORWARD_MODE = threading.Lock()
"""The levels of forward-mode differentiation in torch belong to the process and not to the thread."""


@torch.no_grad()
def pairing_with_tangents(
    envelope: PlaneWaveEnvelope, protons: Tensor, states: WalkerStates, rs_ratio: Tensor
) -> tuple[Tensor, Tensor]:
    """F (W, K, k, k), and its derivatives by ln beta, ln kappa^2 and ln c (3, W, K, k, k).

    Args:
        envelope: gives F.
        protons: bohr.  # (W, N, 3)
        states: of the proton walkers.  # (W,)
        rs_ratio: rs / rs_0.  # (W,)
    """
    log_strengths = envelope.log_strengths(rs_ratio)  # (3, W, K)

    def pairing(logs: Tensor) -> Tensor:
        return envelope.occupied(envelope.orbital_pairs(protons, states, logs), rs_ratio)

    def along(which: Tensor) -> Any:
        return torch.func.jvp(pairing, (log_strengths,), (which.view(3, 1, 1).expand_as(log_strengths),))

    with FORWARD_MODE:
        values, tangents = torch.func.vmap(along)(torch.eye(3).to(log_strengths))
    return values[0], tangents


def pairing_gradients(by_pairing: Tensor, pairing: Tensor, tangents: Tensor, rs_ratio: Tensor) -> dict[str, Tensor]:
    r"""dy/d theta = Re sum_kk' conj(G_kk') dF_kk'/d theta for every parameter of the envelope, G = dy/dF of a real y.

    F = f C f with the diagonal matrix f of occupations. d ln f_k changes row and column k of F in proportion; C has
    three parameters for each determinant, whose tangents belong to the proton walkers.

    Args:
        by_pairing: G for B samples of each proton walker and any number of y.  # (W, B, Y, K, k, k)
        pairing: F.  # (W, K, k, k)
        tangents: from `pairing_with_tangents`.  # (3, W, K, k, k)
        rs_ratio: rs / rs_0.  # (W,)

    Returns:
        By the names of the parameters.  # (W, B, Y, K) or (W, B, Y, K, k - 1)
    """
    # Re conj(a) b is a product of real numbers.
    both = torch.view_as_real(by_pairing + by_pairing.mT)  # F is symmetric
    found = {"log_occupation": (both * torch.view_as_real(pairing)[:, None, None]).sum((-2, -1))[..., 1:]}
    along = torch.einsum("wbykj,pwkj->pwbyk", _flat(by_pairing), _flat(tangents))
    found |= zip(("log_beta", "log_screening", "log_proton_pairing"), along, strict=True)
    log_ratio = torch.log(rs_ratio)
    powers = {
        name.removeprefix("log_") + "_power": gradient * log_ratio.view(-1, *(1,) * (gradient.ndim - 1))
        for name, gradient in found.items()
    }
    return found | powers


def _flat(matrices: Tensor) -> Tensor:
    """The real numbers in complex matrices.  # (..., k, k) -> (..., 2 k^2)"""
    return torch.view_as_real(matrices.resolve_conj()).flatten(-3)
