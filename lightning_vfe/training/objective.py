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


def wavefunction_residuals(
    local_energy: Tensor, clip_width: float, gather: Gather, same_protons: Tensor | None
) -> Tensor:
    r"""E_loc - <E_loc>_x, clipped: what the gradient of the wavefunction weighs d ln psi by.

    Args:
        local_energy: complex E_loc of the whole cell, Ha. # (W, B)
        clip_width: see clip_deviation.
        gather: over the processes.
        same_protons: None if every proton walker has protons of its own: then <E_loc>_x is its mean over its B
            electron walkers. Fixed protons: the number of each walker's twist # (W,); the mean is over all electron
            walkers with this twist.

    Returns:
        Complex, with a mean of zero over the samples of the same protons and twist. # (W, B)
    """
    parts = []
    for energy in (local_energy.real, local_energy.imag):
        # An outlier must not move the others: it is clipped before it enters the mean. And the mean comes last, or
        # clipping would give a gradient to the norm of psi.
        deviation = energy - _centres(energy, _median, gather, same_protons)
        clipped = clip_deviation(deviation, clip_width, gather)
        parts.append(clipped - _centres(clipped, _mean, gather, same_protons))
    return torch.complex(*parts)


def wavefunction_loss(
    log_psi: Tensor, local_energy: Tensor, clip_width: float, gather: Gather, same_protons: Tensor | None
) -> Tensor:
    r"""A number whose gradient is dF/dtheta = 2 Re E_x E_r [(E_loc - <E_loc>_x)^* d ln psi/dtheta].

    Args:
        log_psi: complex, with gradient. # (W, B)
        local_energy, clip_width, gather, same_protons: see wavefunction_residuals. Where <E_loc>_x is the mean of few
            samples, B/(B-1) removes the bias of taking it from the same samples.
    """
    residuals = wavefunction_residuals(local_energy, clip_width, gather, same_protons)
    num_electron_walkers = local_energy.shape[1]
    factor = 1.0 if same_protons is not None else num_electron_walkers / (num_electron_walkers - 1)
    return 2.0 * factor * (residuals.real * log_psi.real + residuals.imag * log_psi.imag).mean()


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


def flow_residuals(log_prob: Tensor, energy: Tensor, kT: float, clip_width: float, gather: Gather) -> Tensor:
    r"""kT ln p + E(x) - F, clipped: what the gradient of the flow weighs d ln p by; noise in E(x) does no harm.

    Args:
        log_prob: ln p(x). # (W,)
        energy: mean local energy of each proton walker, Ha. # (W,)
        kT: in Ha.
        clip_width: see clip_deviation.
        gather: over the processes.

    Returns:
        With a mean of zero over all walkers. # (W,)
    """
    deviation = clip_deviation(kT * log_prob + energy, clip_width, gather)
    return deviation - gather(deviation).mean()


def flow_loss(log_prob: Tensor, energy: Tensor, kT: float, clip_width: float, gather: Gather) -> Tensor:
    """A number whose gradient is dF/dphi = E_x [(kT ln p + E(x) - F) d ln p/dphi].

    Args:
        log_prob: ln p(x), with gradient. # (W,)
        energy, kT, clip_width, gather: see flow_residuals.
    """
    return (flow_residuals(log_prob.detach(), energy, kT, clip_width, gather) * log_prob).mean()
