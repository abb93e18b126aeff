"""ln p(x) as the protons' chains see it: in their own precision, or the cheap density that stands in for p(x)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.physics.state_point import WalkerStates


def chain_log_prob(
    density: ProtonDensity, states: WalkerStates, twin: ProtonDensity | None = None, coarse: bool = False
) -> Callable[[Tensor], Tensor]:
    """ln p(x) as a function of x (W, N, 3) -> (W,), with the parameters that the density has now.

    With a twin the positions are rounded to its precision, flow and base run in it, and the result comes back in the
    type of x: a density in its own right, whose chains are exact for it. In float32 it differs from p(x) by the
    rounding of ln p, about 1e-4 at N = 16 with the shipped potential, and less without.

    Args:
        density: p(x).
        states: state points of the walkers.  # (W,)
        twin: the same density in another precision, see models/twin.py; None computes in that of the density.
        coarse: take `ProtonDensity.surrogate_log_prob` for ln p(x).
    """
    model = density if twin is None else twin
    log_prob = model.surrogate_log_prob if coarse else model.log_prob
    if twin is None:
        return lambda x: log_prob(x, states)
    dtype = next(twin.flow.parameters()).dtype
    rounded = states.to(dtype)
    return lambda x: log_prob(x.to(dtype), rounded).to(x.dtype)
