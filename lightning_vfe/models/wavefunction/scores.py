"""d ln psi / d theta of many electron walkers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from lightning_vfe.models.wavefunction.pairing_gradients import pairing_gradients, pairing_with_tangents
from lightning_vfe.models.wavefunction.wavefunction import GeminalWavefunction
from lightning_vfe.physics.state_point import WalkerStates

ENVELOPE = "envelope."
"""What the names of the envelope's parameters begin with."""


class _Walkers(NamedTuple):
    """Part of the walkers."""

    protons: Tensor
    """# (W, N, 3)"""
    electrons: Tensor
    """# (W, B, N, 3)"""
    states: WalkerStates
    """# (W,)"""


def wavefunction_scores(
    wavefunction: nn.Module,
    protons: Tensor,
    electrons: Tensor,
    states: WalkerStates,
    chunk_size: int | None = None,
) -> Tensor:
    """d ln psi / d theta of every electron walker, real and imaginary part.

    Args:
        wavefunction: called with protons (..., N, 3), electrons (..., N, 3) and states (...); gives ln psi (...).
        protons: bohr.  # (W, N, 3)
        electrons: bohr.  # (W, B, N, 3)
        states: state point and twist of every proton walker.  # (W,)
        chunk_size: electron walkers at a time, which bounds the memory; None for all of them at once.

    Returns:
        P runs over the trainable parameters in the order of wavefunction.parameters().  # (W, B, 2, P)
    """
    parameters = {name: p.detach() for name, p in wavefunction.named_parameters() if p.requires_grad}
    num_walkers, num_electron_walkers = electrons.shape[:2]
    chunk = num_walkers * num_electron_walkers if chunk_size is None else chunk_size
    rows, columns = max(1, chunk // num_electron_walkers), min(chunk, num_electron_walkers)
    sizes = [parameter.numel() for parameter in parameters.values()]
    scores = electrons.new_empty(num_walkers, num_electron_walkers, 2, sum(sizes))
    of_parameters = dict(zip(parameters, scores.split(sizes, dim=-1), strict=True))
    for i in range(0, num_walkers, rows):
        for j in range(0, num_electron_walkers, columns):
            w, b = slice(i, i + rows), slice(j, j + columns)
            walkers = _Walkers(protons[w].detach(), electrons[w, b].detach(), states[w])
            for name, gradient in _gradients(wavefunction, parameters, walkers).items():
                of_parameters[name][w, b] = gradient.unsqueeze(-1).flatten(3)
    return scores


def _gradients(wavefunction: nn.Module, parameters: dict[str, Tensor], walkers: _Walkers) -> dict[str, Tensor]:
    """Derivatives (W, B, 2, ...) of Re and Im ln psi by every parameter.

    The pairing matrix of the envelope depends on the protons and a few parameters. The derivative by its elements comes
    from every sample, the rest of the chain rule once from every proton walker.
    """
    if type(wavefunction) is not GeminalWavefunction:
        return _pulled_back(wavefunction, parameters, walkers, {})
    rs_ratio = walkers.states.rs / wavefunction.reference_rs
    pairing, tangents = pairing_with_tangents(wavefunction.envelope, walkers.protons, walkers.states, rs_ratio)
    of_network = {name: value for name, value in parameters.items() if not name.startswith(ENVELOPE)}
    found = _pulled_back(wavefunction, of_network, walkers, {"pairing": pairing})
    of_envelope = pairing_gradients(found["pairing"], pairing, tangents, rs_ratio)
    found |= {ENVELOPE + name: gradient for name, gradient in of_envelope.items()}
    return {name: found[name] for name in parameters}


# Under no_grad, vmap over the pull-back of a determinant gives wrong numbers without a word (torch 2.13).
@torch.enable_grad()
def _pulled_back(
    wavefunction: nn.Module, parameters: dict[str, Tensor], walkers: _Walkers, matrices: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Derivatives (W, B, 2, ...) of Re and Im ln psi by the parameters, and by the pairing (W, K, k, k) if given."""

    def pulled(
        protons: Tensor, electrons: Tensor, rs: Tensor, kT: Tensor, twist: Tensor, matrices: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        def parts(values: dict[str, Tensor], matrices: dict[str, Tensor]) -> Tensor:
            log_psi = functional_call(wavefunction, values, (protons, electrons, WalkerStates(rs, kT, twist)), matrices)
            return torch.view_as_real(log_psi)

        both = torch.eye(2, dtype=protons.dtype, device=protons.device)
        found: tuple[dict[str, Tensor], dict[str, Tensor]] = vmap(vjp(parts, parameters, matrices)[1])(both)
        return found[0] | found[1]

    states = walkers.states
    of_walkers = vmap(vmap(pulled, in_dims=(None, 0, None, None, None, None)))  # electron walkers share all else
    found: dict[str, Tensor] = of_walkers(
        walkers.protons, walkers.electrons, states.rs, states.kT, states.twist, matrices
    )
    return found
