"""What the sampler is given of the model's p(x), for each way of sampling it."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_vfe.models.chain_density import chain_log_prob
from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.sampling.delayed import DelayedDensity
from lightning_vfe.sampling.direct import BaseDensity
from lightning_vfe.sampling.proton_moves import ProtonLaw


def proton_law(density: ProtonDensity, proton_sampling: str, dtype: torch.dtype | None = None) -> ProtonLaw:
    """p(x) with the parameters that it has now; to be made anew for every sweep.

    Args:
        density: p(x).
        proton_sampling: "metropolis", "direct" or "delayed".
        dtype: type of numbers of chains on p(x), or on the density that stands in for it; None keeps that of p(x). The
            exact decisions of "delayed", and all of "direct", are not affected.
    """
    if proton_sampling == "direct":
        return base_density(density)
    if proton_sampling == "delayed":
        return DelayedDensity(density.log_prob, chain_log_prob(density, dtype, coarse=True))
    return chain_log_prob(density, dtype)


def base_density(density: ProtonDensity) -> BaseDensity:
    """p(x) by its base density and map, for chains on the base protons."""
    base, flow = density.base, density.flow

    def from_base(z: Tensor) -> tuple[Tensor, Tensor]:
        found = flow.from_base(z)
        return found.x, found.converged

    return BaseDensity(
        log_prob=base.log_prob,
        to_base=lambda x: x + flow.displacement(x),
        from_base=from_base,
        sample=getattr(base, "sample", None),
    )
