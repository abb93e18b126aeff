"""|psi_x(r)|^2 as a density of the electrons alone, for chains in the field of protons that stay."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from lightning_vfe.models.wavefunction.wavefunction import GeminalWavefunction


def conditional_log_prob(
    wavefunction: GeminalWavefunction, protons: Tensor, twists: Tensor, dtype: torch.dtype | None = None
) -> Callable[[Tensor], Tensor]:
    """ln |psi_x(r)|^2 as a function of r (W, B, N, 3) -> (W, B), with the parameters that the wavefunction has now.

    What depends on protons and twists alone is computed once. In another type of numbers the positions are rounded to
    it, the networks run in it, and the result comes back in the type of r: a density in its own right, whose chains
    are exact for it. It differs from |psi|^2 by the rounding of ln psi, about 1e-6 in float32.

    Args:
        wavefunction: psi_x(r).
        protons: in bohr.  # (W, N, 3)
        twists: fractional.  # (W, 3)
        dtype: type of numbers of the networks, for example torch.float32; None keeps that of the wavefunction.
    """
    x, k = protons.unsqueeze(1), twists.unsqueeze(1)
    with torch.no_grad():
        fixed = wavefunction.prepare(x, k)
    if dtype is None or dtype == protons.dtype:
        return lambda electrons: 2.0 * wavefunction.log_psi(x, electrons, k, fixed).real
    with torch.no_grad():
        rounded = copy.deepcopy(wavefunction).to(dtype)
    x, k, fixed = x.to(dtype), k.to(dtype), fixed.to(dtype)
    return lambda electrons: 2.0 * rounded.log_psi(x, electrons.to(dtype), k, fixed).real.to(electrons.dtype)
