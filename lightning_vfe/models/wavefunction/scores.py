"""d ln psi / d theta of many electron walkers, as many at once as the memory allows."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from lightning_vfe.models.wavefunction.pairing_gradients import pairing_gradients, pairing_with_tangents
from lightning_vfe.models.wavefunction.wavefunction import GeminalWavefunction
from lightning_vfe.physics.chunking import after_halvings, map_chunks, max_kept_elements
from lightning_vfe.physics.state_point import WalkerStates

PAIR_NUMBERS, PARAMETER_NUMBERS = 1500, 4
"""Numbers that the derivatives of one electron walker take for each pair of atoms and for each parameter, as measured
with three and four layers."""
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
        chunk_size: electron walkers at a time; None takes as many as the free memory, or `max_chunk_elements`, allows.

    Returns:
        P runs over the trainable parameters in the order of wavefunction.parameters().  # (W, B, 2, P)

    Raises:
        SettingError: a single electron walker does not fit into the memory.
    """
    parameters = {name: p.detach() for name, p in wavefunction.named_parameters() if p.requires_grad}
    sizes = [parameter.numel() for parameter in parameters.values()]
    num_electron_walkers, num_atoms = electrons.shape[1:3]
    scores = electrons.new_empty(*electrons.shape[:2], 2, sum(sizes))

    def write(x: Tensor, r: Tensor, rs: Tensor, kT: Tensor, twist: Tensor, own: Tensor) -> tuple[()]:
        walkers = _Walkers(x.squeeze(1), r, WalkerStates(rs.flatten(), kT.flatten(), twist.flatten(0, -2)))
        gradients = _gradients(wavefunction, parameters, walkers).values()
        for gradient, columns in zip(gradients, own.split(sizes, dim=-1), strict=True):
            columns.copy_(gradient.unsqueeze(-1).flatten(3))
        return ()

    if chunk_size is None:
        limit = max_kept_elements(electrons) // (PAIR_NUMBERS * num_atoms**2 + PARAMETER_NUMBERS * sum(sizes))
    else:
        limit = after_halvings(chunk_size)
    if limit > num_electron_walkers:
        limit -= limit % num_electron_walkers  # proton walkers stay whole
    of_states = states.rs[:, None, None, None], states.kT[:, None, None, None], states.twist[:, None, None]
    map_chunks(write, max(1, limit), protons.detach().unsqueeze(1), electrons.detach(), *of_states, scores)
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
