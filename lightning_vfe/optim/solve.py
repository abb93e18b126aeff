"""The preconditioned direction of one block, in the space of its samples or in that of its parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_vfe.optim.exchange import Exchange


class ScoreBlock(NamedTuple):
    """Samples of this process, from which one block is updated.

    With Obar the scores minus their mean over the samples of the same group, and c = n/(n - 1) for groups of n samples,
    which removes the bias of a mean taken from the same samples,

        S = 1/M sum_m c Re Obar_m^* Obar_m^T,        f = 1/M sum_m c Re Obar_m^* e_m.

    For the wavefunction O = d ln psi/d theta, e = E_loc - <E_loc>_x, grouped by the protons x, and dF/d theta = 2 f.
    For the flow O = d ln p/d phi, e = kT ln p + E - F, in one group, and dF/d phi = f.
    """

    scores: Tensor
    """Real, or the real and the imaginary part (c = 1 or 2). # (M, c, P)"""
    residuals: Tensor
    """Ha; its mean over every group is zero. # (M, c)"""
    groups: Tensor
    """Group of each sample, numbered over all processes. # (M,)"""


class Direction(NamedTuple):
    """What an update is made of; equal on all processes."""

    direction: Tensor
    """phi, float64. # (P,)"""
    squared_norm: Tensor
    """phi^T (S + damping) phi: for momentum 0 this is f . phi. # ()"""
    solved: Tensor
    """False where the matrix was not positive definite. # ()"""


@dataclass(frozen=True)
class Preconditioner:
    """Settings of a solve: (S + damping)^-1, and the share of the last direction that is kept."""

    damping: float
    momentum: float


def in_sample_space(block: ScoreBlock, last: Tensor, settings: Preconditioner, exchange: Exchange) -> Direction:
    r"""phi = mu phi' + A^T (A A^T + lambda + sum_g 1_g 1_g^T)^-1 (e - mu A phi'), with S = A^T A and f = A^T e.

    Each group has a null vector of A A^T of its own, 1_g (constant on the group, of length one), because its scores are
    centred. Every process turns its samples into the columns of its share of the parameters; the M x M matrix is summed.

    Source: Chen and Heyl, Nat. Phys. 20, 1476 (2024) (minSR); Goldshlager, Abrahamsen, Lin, J. Comput. Phys. 516,
    113351 (2024) (SPRING).

    Args:
        block: samples of this process.
        last: phi' of the step before.  # (P,)
        settings: lambda = damping and mu = momentum.
        exchange: the processes.
    """
    num_parameters = block.scores.shape[-1]
    components = block.scores.shape[1]
    columns = exchange.own_columns(block.scores.flatten(0, 1))  # (M c, C)
    groups, residuals = exchange.gather(block.groups), exchange.gather(block.residuals)
    rows = columns.to(torch.float64).unflatten(0, (-1, components))
    counts, index = _counts(groups), groups
    means = rows.new_zeros(len(counts), *rows.shape[1:]).index_add_(0, index, rows) / counts[:, None, None]
    weight = _weights(counts, index)
    a = ((rows - means[index]) * weight[:, None, None]).flatten(0, 1)  # (R, C), R = M c
    e = (residuals.to(torch.float64) * weight[:, None]).flatten()
    gram, carried = exchange.sum(a @ a.T), exchange.sum(a @ exchange.own(last.to(torch.float64)))
    same = (index[:, None] == index[None, :]).to(torch.float64) / counts[index]
    null = torch.kron(same, torch.eye(components, dtype=same.dtype, device=same.device))
    shifted = gram + null
    shifted.diagonal().add_(settings.damping)
    factor, info = torch.linalg.cholesky_ex(shifted)
    solution = torch.cholesky_solve((e - settings.momentum * carried).unsqueeze(-1), factor).squeeze(-1)
    phi = settings.momentum * last.to(torch.float64) + exchange.join(a.T @ solution, num_parameters)
    image = settings.momentum * carried + gram @ solution  # A phi
    return Direction(phi, image @ image + settings.damping * (phi @ phi), info == 0)


def fisher_and_force(block: ScoreBlock, exchange: Exchange) -> tuple[Tensor, Tensor]:
    """S  # (P, P) and f  # (P,) of all processes."""
    scores = block.scores.to(torch.float64)
    groups = exchange.gather(block.groups)
    counts = _counts(groups)
    sums = scores.new_zeros(len(counts), *scores.shape[1:]).index_add_(0, block.groups, scores)
    means = exchange.sum(sums) / counts[:, None, None]
    weight = _weights(counts, block.groups)
    a = ((scores - means[block.groups]) * weight[:, None, None]).flatten(0, 1)
    e = (block.residuals.to(torch.float64) * weight[:, None]).flatten()
    return exchange.sum(a.T @ a), exchange.sum(a.T @ e)


def in_parameter_space(fisher: Tensor, force: Tensor, last: Tensor, settings: Preconditioner) -> Direction:
    """phi = mu phi' + (S + lambda)^-1 (f - mu S phi'): the same update, by a P x P matrix.

    Source: Sorella, PRL 80, 4558 (1998), without the momentum.
    """
    last = last.to(torch.float64)
    shifted = fisher.clone()
    shifted.diagonal().add_(settings.damping)
    factor, info = torch.linalg.cholesky_ex(shifted)
    missing = force - settings.momentum * (fisher @ last)
    phi = settings.momentum * last + torch.cholesky_solve(missing.unsqueeze(-1), factor).squeeze(-1)
    return Direction(phi, phi @ (fisher @ phi) + settings.damping * (phi @ phi), info == 0)


def _counts(groups: Tensor) -> Tensor:
    """Samples of every group, of all processes.  # (M,) -> (G,)"""
    return torch.bincount(groups).to(torch.float64)


def _weights(counts: Tensor, groups: Tensor) -> Tensor:
    """sqrt(c / M) of every sample."""
    return (counts / ((counts - 1.0) * counts.sum())).sqrt()[groups]
