"""|psi_x(r)|^2 as a density of the electrons alone, for chains in the field of protons that stay."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightning_vfe.models.wavefunction.density import ElectronDensity
from lightning_vfe.models.wavefunction.molecular import MolecularWavefunction
from lightning_vfe.models.wavefunction.wavefunction import GeminalWavefunction
from lightning_vfe.physics.state_point import WalkerStates


def electron_density(
    wavefunction: nn.Module, protons: Tensor, states: WalkerStates, dtype: torch.dtype | None
) -> ElectronDensity | None:
    """ln |psi_x(r)|^2 in few operations, for one electron walker each and electrons in units of rs.

    It has the parameters that the wavefunction has now. None where psi is neither a `GeminalWavefunction`
    nor a `MolecularWavefunction`.

    What depends on parameters, protons and states alone is computed once, in the precision of the wavefunction. In
    another precision it is a density in its own right, whose chains are exact for it. It differs from |psi|^2 by the
    rounding of ln psi, about 1e-6 in float32.

    Args:
        wavefunction: psi_x(r).
        protons: in bohr.  # (W, N, 3)
        states: state point and twist of every proton walker.  # (W,)
        dtype: precision of the evaluations; None takes that of the wavefunction.
    """
    # a subclass may give another psi
    if type(wavefunction) is GeminalWavefunction or type(wavefunction) is MolecularWavefunction:
        return ElectronDensity.prepare(wavefunction, protons, states, dtype)
    return None


def plain_log_prob(
    wavefunction: nn.Module,
    protons: Tensor,
    states: WalkerStates,
    twin: nn.Module | None = None,
) -> Callable[[Tensor], Tensor]:
    """ln |psi_x(r)|^2 of electrons in bohr (W, B, N, 3) -> (W, B) by ln psi.

    It is the reference for `electron_density`, and what every other wavefunction takes.

    Args:
        wavefunction: psi_x(r).
        protons: in bohr.  # (W, N, 3)
        states: state point and twist of every proton walker.  # (W,)
        twin: the same wavefunction in another precision, see models/twin.py: positions are rounded to that, and the
            result comes back in the dtype of the electrons. None computes in the precision of the wavefunction.
    """
    x, state, fixed = protons.unsqueeze(1), states.unsqueeze(1), {}
    if hasattr(wavefunction, "prepare"):
        with torch.no_grad():
            fixed = {"fixed": wavefunction.prepare(x, state)}  # type: ignore[operator]
    if twin is None:
        return lambda electrons: 2.0 * wavefunction(x, electrons, state, **fixed).real
    model, dtype = twin, next(twin.parameters()).dtype  # a twin is made of a network that has parameters
    x, state, fixed = x.to(dtype), state.to(dtype), {name: value.to(dtype) for name, value in fixed.items()}
    return lambda electrons: 2.0 * model(x, electrons.to(dtype), state, **fixed).real.to(electrons.dtype)
