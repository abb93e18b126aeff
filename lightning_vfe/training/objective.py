"""The score-function gradients of F, written as functions whose derivative they are."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Gather = Callable[[Tensor], Tensor]
"""Concatenates the values (W, ...) of all processes along the first dimension."""


def clip_deviation(deviation: Tensor, width: float, gather: Gather) -> Tensor:
    """Clip to `width` times the mean absolute deviation around the median, both over all processes.

    Only gradients are clipped, never reported energies. A few electrons close to a node, or protons close to each
    other, would otherwise dominate a step (Spencer et al., arXiv:2011.07125; Pfau et al. 2020).
    """
    everything = gather(deviation).flatten()
    median = everything.median()
    spread = (everything - median).abs().mean() * width
    return deviation.clamp(median - spread, median + spread)


def wavefunction_loss(
    log_psi: Tensor, local_energy: Tensor, clip_width: float, gather: Gather, same_protons: Tensor | None
) -> Tensor:
    r"""A number whose gradient is dF/dtheta = 2 Re E_x E_r [(E_loc - <E_loc>_x)^* d ln psi/dtheta].

    Args:
        log_psi: complex, with gradient. # (W, B)
        local_energy: complex E_loc of the whole cell, Ha. # (W, B)
        clip_width: see clip_deviation.
        gather: over the processes.
        same_protons: None if every proton walker has protons of its own: then <E_loc>_x is its mean over its B
            electron walkers, and B/(B-1) removes the bias of a mean taken from the same samples. Fixed protons: the
            number of each walker's twist # (W,); the mean is over all electron walkers with this twist.
    """
    num_electron_walkers = local_energy.shape[1]
    factor = 1.0 if same_protons is not None else num_electron_walkers / (num_electron_walkers - 1)
    parts = []
    for energy, log in ((local_energy.real, log_psi.real), (local_energy.imag, log_psi.imag)):
        # An outlier must not move the others: it is clipped before it enters the mean. And the mean comes last, or
        # clipping would give a gradient to the norm of psi.
        deviation = energy - _centres(energy, _median, gather, same_protons)
        clipped = clip_deviation(deviation, clip_width, gather)
        parts.append(((clipped - _centres(clipped, _mean, gather, same_protons)) * log).mean())
    return 2.0 * factor * (parts[0] + parts[1])


def _mean(values: Tensor) -> Tensor:
    return values.mean(1)


def _median(values: Tensor) -> Tensor:
    return values.median(1).values


def _centres(values: Tensor, reduce: Callable[[Tensor], Tensor], gather: Gather, same_protons: Tensor | None) -> Tensor:
    """Mean or median (W, 1) of the values (W, B) with the same protons and twist."""
    if same_protons is None:
        return reduce(values).unsqueeze(1)
    everything, strata = gather(values), gather(same_protons)
    twists = range(int(strata.max()) + 1)
    return torch.cat([reduce(everything[strata == twist].reshape(1, -1)) for twist in twists])[same_protons, None]


def flow_loss(log_prob: Tensor, energy: Tensor, kT: float, clip_width: float, gather: Gather) -> Tensor:
    r"""A number whose gradient is dF/dphi = E_x [(kT ln p + E(x) - F) d ln p/dphi]; noise in E(x) does no harm.

    Args:
        log_prob: ln p(x), with gradient. # (W,)
        energy: mean local energy of each proton walker, Ha. # (W,)
        kT: in Ha.
        clip_width: see clip_deviation.
        gather: over the processes.
    """
    deviation = clip_deviation(kT * log_prob.detach() + energy, clip_width, gather)
    return ((deviation - gather(deviation).mean()) * log_prob).mean()
