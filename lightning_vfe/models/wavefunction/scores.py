"""Derivatives of ln psi with respect to all parameters, sample by sample."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from lightning_vfe.physics.state_point import WalkerStates


def wavefunction_scores(
    wavefunction: nn.Module,
    protons: Tensor,
    electrons: Tensor,
    states: WalkerStates,
    chunk_size: int | None = None,
) -> Tensor:
    """d ln psi / d theta of every electron walker, real and imaginary part.

    What depends on the protons alone is computed once for each proton walker.

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

    def pulled(protons: Tensor, electrons: Tensor, rs: Tensor, kT: Tensor, twist: Tensor) -> Tensor:
        state = WalkerStates(rs, kT, twist)

        def parts(values: dict[str, Tensor]) -> Tensor:
            return torch.view_as_real(functional_call(wavefunction, values, (protons, electrons, state)))

        pull = vjp(parts, parameters)[1]
        both = torch.eye(2, dtype=protons.dtype, device=protons.device)
        gradients = vmap(pull)(both)[0]
        return torch.cat([gradients[name].reshape(2, -1) for name in parameters], dim=1)

    num_walkers, num_electron_walkers = electrons.shape[:2]
    samples = vmap(vmap(pulled, in_dims=(None, 0, None, None, None)))
    chunk = num_walkers * num_electron_walkers if chunk_size is None else chunk_size
    rows, columns = max(1, chunk // num_electron_walkers), min(chunk, num_electron_walkers)
    size = sum(parameter.numel() for parameter in parameters.values())
    scores = electrons.new_empty(num_walkers, num_electron_walkers, 2, size)
    # Under no_grad, vmap over the pull-back of a determinant gives wrong numbers without a word (torch 2.13).
    with torch.enable_grad():
        for i in range(0, num_walkers, rows):
            for j in range(0, num_electron_walkers, columns):
                part = slice(i, i + rows)
                own = states.rs[part], states.kT[part], states.twist[part]
                scores[part, j : j + columns] = samples(protons[part], electrons[part, j : j + columns], *own)
    return scores
