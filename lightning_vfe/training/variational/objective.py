"""The score-function gradients of F, written as functions whose derivative they are.

Samples are compared within their group: the walkers of one stratum share Hamiltonian and temperature. All groups have
equally many walkers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Gather = Callable[[Tensor], Tensor]
"""Concatenates the values (W, ...) of all processes along the first dimension."""
_ROUNDS = 4
"""Means of the absolute deviation: of all values, then of clipped ones."""


class Groups(NamedTuple):
    """Which walkers are compared with each other, and what each counts.

    Attributes:
        label: number of the group of each walker of this process, from 0.  # (W,)
        number: of groups, over all processes.
        weight: what each walker counts in the objective; one on average.  # (W,)
    """

    label: Tensor
    number: int
    weight: Tensor

    @staticmethod
    def one(num_walkers: int, like: Tensor) -> Groups:
        """All walkers in one group, with equal weights."""
        label = torch.zeros(num_walkers, dtype=torch.int64, device=like.device)
        return Groups(label, 1, like.new_ones(num_walkers, dtype=like.real.dtype))

    def collect(self, values: Tensor, gather: Gather) -> Tensor:
        """All values of each group.  # (W, ...) -> (number, walkers of a group, ...)"""
        everything = gather(values)
        order = torch.argsort(gather(self.label), stable=True)
        grouped: Tensor = everything[order].unflatten(0, (self.number, -1))
        return grouped


def clip_deviation(deviation: Tensor, width: float, gather: Gather, groups: Groups) -> Tensor:
    """Clip to `width` times the mean absolute deviation around the median, both of the group.

    The mean is taken again over the clipped values, three times in all: among the few samples of a group, an outlier
    would else widen its own bounds, up to where it is not clipped. Only gradients are clipped, never reported energies.
    A few electrons close to a node, or protons close to each other, would otherwise dominate a step (Spencer et al.,
    arXiv:2011.07125; Pfau et al. 2020).
    """
    everything = groups.collect(deviation, gather).flatten(1)
    median = everything.median(1).values
    distance = (everything - median.unsqueeze(1)).abs()
    spread = distance.mean(1)
    for _ in range(_ROUNDS - 1):
        spread = torch.minimum(distance, width * spread.unsqueeze(1)).mean(1)
    shape = (-1, *(1,) * (deviation.ndim - 1))
    low, high = ((median + sign * width * spread)[groups.label].view(shape) for sign in (-1.0, 1.0))
    return torch.minimum(torch.maximum(deviation, low), high)


def wavefunction_residuals(
    local_energy: Tensor, clip_width: float, gather: Gather, groups: Groups, same_protons: Groups | None
) -> Tensor:
    r"""E_loc - <E_loc>_x, clipped: what the gradient of the wavefunction weighs d ln psi by.

    Args:
        local_energy: complex E_loc of the whole cell, Ha. # (W, B)
        clip_width: see clip_deviation.
        gather: over the processes.
        groups: the strata, within which energies are clipped.
        same_protons: None if every proton walker has protons of its own: then <E_loc>_x is its mean over its B
            electron walkers. Fixed protons: the walkers that share protons, density and twist; the mean is over all
            their electron walkers.

    Returns:
        Complex, with a mean of zero over the samples of the same protons and twist. # (W, B)
    """
    parts = []
    for energy in (local_energy.real, local_energy.imag):
        # An outlier must not move the others: it is clipped before it enters the mean. And the mean comes last, or
        # clipping would give a gradient to the norm of psi.
        deviation = energy - _centres(energy, _median, gather, same_protons)
        clipped = clip_deviation(deviation, clip_width, gather, groups)
        parts.append(clipped - _centres(clipped, _mean, gather, same_protons))
    return torch.complex(*parts)


def wavefunction_loss(
    log_psi: Tensor,
    local_energy: Tensor,
    clip_width: float,
    gather: Gather,
    groups: Groups,
    same_protons: Groups | None,
    scale: Tensor | float = 1.0,
) -> Tensor:
    r"""A number whose gradient is dF/dtheta = 2 Re E_x E_r [(E_loc - <E_loc>_x)^* d ln psi/dtheta].

    Args:
        log_psi: complex, with gradient. # (W, B)
        local_energy: complex E_loc of the whole cell, Ha. # (W, B)
        clip_width: see clip_deviation.
        gather: over the processes.
        groups: the strata, within which energies are clipped.
        same_protons: see wavefunction_residuals. Where <E_loc>_x is the mean of few samples, B/(B-1) removes the bias
            of taking it from the same samples.
        scale: factor of the energies of each walker, which brings state points to one scale. # (W,)
    """
    residuals = wavefunction_residuals(local_energy, clip_width, gather, groups, same_protons)
    num_electron_walkers = local_energy.shape[1]
    factor = 1.0 if same_protons is not None else num_electron_walkers / (num_electron_walkers - 1)
    products = residuals.real * log_psi.real + residuals.imag * log_psi.imag
    return 2.0 * factor * ((groups.weight * scale).unsqueeze(1) * products).mean()


def _mean(values: Tensor) -> Tensor:
    return values.mean(1)


def _median(values: Tensor) -> Tensor:
    return values.median(1).values


def _centres(values: Tensor, reduce: Callable[[Tensor], Tensor], gather: Gather, same: Groups | None) -> Tensor:
    """Mean or median (W, 1) of the values (W, B) with the same protons and twist."""
    if same is None:
        return reduce(values).unsqueeze(1)
    return reduce(same.collect(values, gather).flatten(1))[same.label, None]


def flow_residuals(
    log_prob: Tensor, energy: Tensor, kT: Tensor, clip_width: float, gather: Gather, groups: Groups
) -> Tensor:
    r"""kT ln p + E(x) - F, clipped: what the gradient of the flow weighs d ln p by; noise in E(x) does no harm.

    Args:
        log_prob: ln p(x). # (W,)
        energy: mean local energy of each proton walker, Ha. # (W,)
        kT: of each walker, in Ha. # (W,)
        clip_width: see clip_deviation.
        gather: over the processes.
        groups: walkers with one F.

    Returns:
        With a mean of zero over every group. # (W,)
    """
    deviation = clip_deviation(kT * log_prob + energy, clip_width, gather, groups)
    return deviation - groups.collect(deviation, gather).mean(1)[groups.label]


def flow_loss(
    log_prob: Tensor,
    energy: Tensor,
    kT: Tensor,
    clip_width: float,
    gather: Gather,
    groups: Groups,
    scale: Tensor | float = 1.0,
) -> Tensor:
    """A number whose gradient is dF/dphi = E_x [(kT ln p + E(x) - F) d ln p/dphi].

    The gradient is (n - 1)/n times that for groups of n walkers, since F is their own mean.

    Args:
        log_prob: ln p(x), with gradient. # (W,)
        energy: mean local energy of each proton walker, Ha. # (W,)
        kT: of each walker, in Ha. # (W,)
        clip_width: see clip_deviation.
        gather: over the processes.
        groups: walkers with one F.
        scale: factor of the energies of each walker, which brings state points to one scale. # (W,)
    """
    residuals = flow_residuals(log_prob.detach(), energy, kT, clip_width, gather, groups)
    return (groups.weight * scale * residuals * log_prob).mean()
