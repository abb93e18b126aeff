"""The preconditioned direction of one block, in the space of its samples or in that of its parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_vfe.optim.collectives import Collectives

COLUMNS = 4096
"""Parameters whose scores are multiplied at once."""
BLOCKS = 8
"""Of rows, in the matrix of the samples."""


class ScoreBlock(NamedTuple):
    """Samples of this process, from which one block is updated.

    With Obar the scores minus their mean over the samples of the same group, and c = n/(n - 1) for groups of n samples,
    which removes the bias of a mean taken from the same samples,

        S = 1/M sum_m c w_m Re Obar_m^* Obar_m^T,        f = 1/M sum_m c w_m Re Obar_m^* e_m.

    For the wavefunction O = d ln psi/d theta, e = E_loc - <E_loc>_x, grouped by the protons x, and dF/d theta = 2 f.
    For the flow O = d ln p/d theta, e = kT ln p + E - F, grouped by stratum, and dF/d theta = f. The weights w are
    those of the twists.
    """

    scores: Tensor
    """Real, or the real and the imaginary part (c = 1 or 2). # (M, c, P)"""
    residuals: Tensor
    """Ha; its mean over every group is zero. # (M, c)"""
    groups: Tensor
    """Group of each sample, numbered over all processes. # (M,)"""
    weights: Tensor | None = None
    """w, equal for the samples of a group and one on average; None is one everywhere. # (M,)"""


class Direction(NamedTuple):
    """What an update is made of; equal on all processes up to rounding."""

    direction: Tensor
    """phi, float64. # (P,)"""
    squared_norm: Tensor
    """phi^T (S + damping) phi: for momentum 0 this is f . phi. # ()"""
    solved: Tensor
    """False where the matrix was not positive definite. # ()"""

    def of_first_process(self, collectives: Collectives) -> Direction:
        """The same numbers on all processes, bit for bit."""
        flag = self.solved.to(self.direction).unsqueeze(0)
        packed = collectives.broadcast(torch.cat([self.direction, self.squared_norm.unsqueeze(0), flag]))
        return Direction(packed[:-2], packed[-2], packed[-1] > 0)


@dataclass(frozen=True)
class SolveSettings:
    """Settings of a solve: (S + damping)^-1, and the share of the last direction that is kept."""

    damping: float
    momentum: float


def minsr_direction(block: ScoreBlock, last: Tensor, settings: SolveSettings, collectives: Collectives) -> Direction:
    r"""phi = mu phi' + A^T (A A^T + lambda + sum_g 1_g 1_g^T)^-1 (e - mu A phi'), with S = A^T A and f = A^T e.

    Each group has a null vector of A A^T of its own, 1_g (constant on the group, of length one), because its scores are
    centred. Every process turns its samples into the columns of its share of the parameters; A A^T is summed.

    Source: Chen and Heyl, Nat. Phys. 20, 1476 (2024) (minSR); Goldshlager, Abrahamsen, Lin, J. Comput. Phys. 516,
    113351 (2024) (SPRING).

    Args:
        block: samples of this process.
        last: phi' of the step before.  # (P,)
        settings: lambda = damping and mu = momentum.
        collectives: the processes.
    """
    num_parameters, components = block.scores.shape[-1], block.scores.shape[1]
    rows = collectives.transpose_shards(block.scores.flatten(0, 1))  # (R, C), R = M c
    groups = collectives.gather(block.groups)
    residuals = collectives.gather(block.residuals).to(torch.float64)
    centring = _Centring(groups, components, None if block.weights is None else collectives.gather(block.weights))
    before = collectives.shard(last.to(torch.float64))
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows.device)
    carried = gram.new_zeros(len(rows))  # A phi'
    for columns, part in zip(rows.split(COLUMNS, dim=1), before.split(COLUMNS), strict=True):
        columns = columns.to(torch.float64)
        _add_lower_products(gram, columns)
        carried.addmv_(columns, part)
    gram, carried = collectives.sum(gram), collectives.sum(carried)
    gram = torch.tril(gram).add_(torch.tril(gram, -1).T)
    # Centred here, the matrix costs R^2 instead of the R P of its rows.
    gram, carried = centring(centring(gram).T), centring(carried.unsqueeze(-1)).squeeze(-1)
    shifted = gram + centring.null_space()
    shifted.diagonal().add_(settings.damping)
    factor, info = torch.linalg.cholesky_ex(shifted)
    missing = centring.weighted(residuals.flatten()) - settings.momentum * carried
    solution = torch.cholesky_solve(missing.unsqueeze(-1), factor).squeeze(-1)
    centred = centring.transposed(solution)
    change = torch.cat([columns.to(torch.float64).T @ centred for columns in rows.split(COLUMNS, dim=1)])
    phi = settings.momentum * last.to(torch.float64) + collectives.unshard(change, num_parameters)
    image = settings.momentum * carried + gram @ solution  # A phi
    return Direction(phi, image @ image + settings.damping * (phi @ phi), info == 0)


def _add_lower_products(gram: Tensor, rows: Tensor) -> None:
    """Add the scalar products of the rows (R, C) to the lower triangle of a matrix (R, R), in place.

    BLOCKS blocks of rows leave out nearly half of the work; some elements above the diagonal change, too.
    """
    size = -(-len(rows) // BLOCKS)
    for start in range(0, len(rows), size):
        stop = min(start + size, len(rows))
        gram[start:stop, :stop].addmm_(rows[start:stop], rows[:stop].T)


class _Centring:
    """Subtracts the means of the groups from rows (R, C) and weighs them with sqrt(c w / M), R = M components."""

    def __init__(self, groups: Tensor, components: int, weights: Tensor | None) -> None:
        counts = _counts(groups)
        self.weight = _weights(counts, groups, weights).repeat_interleave(components).unsqueeze(-1)
        parts = torch.arange(components, device=groups.device)
        self.index = (groups.unsqueeze(-1) * components + parts).flatten()  # every component has means of its own
        self.counts = counts.repeat_interleave(components).unsqueeze(-1)

    def __call__(self, rows: Tensor) -> Tensor:
        sums = rows.new_zeros(len(self.counts), rows.shape[1]).index_add_(0, self.index, rows)
        return (rows - (sums / self.counts)[self.index]).mul_(self.weight)

    def weighted(self, values: Tensor) -> Tensor:
        """Weighed values (R,) whose means are zero already."""
        return values * self.weight.squeeze(-1)

    def transposed(self, values: Tensor) -> Tensor:
        """The transpose of __call__ on a vector (R,)."""
        weighed = (values * self.weight.squeeze(-1)).unsqueeze(-1)
        sums = weighed.new_zeros(len(self.counts), 1).index_add_(0, self.index, weighed)
        return (weighed - (sums / self.counts)[self.index]).squeeze(-1)

    def null_space(self) -> Tensor:
        """sum_g 1_g 1_g^T (R, R)."""
        same = self.index.unsqueeze(-1) == self.index
        return same.to(self.counts.dtype) / self.counts[self.index]


def fisher_and_force(block: ScoreBlock, collectives: Collectives) -> tuple[Tensor, Tensor]:
    """S  # (P, P) and f  # (P,) of all processes.

    Only groups that several processes share, those of fixed protons, have their means exchanged.
    """
    groups = collectives.gather(block.groups)
    counts = _counts(groups)
    scores = block.scores.to(torch.float64)
    shared = _is_shared(groups, collectives.size)
    if shared:
        present, index = torch.arange(len(counts), device=groups.device), block.groups
    else:
        present, index = torch.unique(block.groups, return_inverse=True)
    sums = scores.new_zeros(len(present), *scores.shape[1:]).index_add_(0, index, scores)
    sums = collectives.sum(sums) if shared else sums
    a = (sums / counts[present][:, None, None])[index]
    weight = _weights(counts, block.groups, block.weights)
    torch.sub(scores, a, out=a).mul_(weight[:, None, None])
    a = a.flatten(0, 1)
    e = (block.residuals.to(torch.float64) * weight[:, None]).flatten()
    return collectives.sum(a.T @ a), collectives.sum(a.T @ e)


def _is_shared(groups: Tensor, num_processes: int) -> bool:
    """Whether a group has samples on more than one process; all of them find the same."""
    seen = [torch.bincount(part, minlength=int(groups.max()) + 1) > 0 for part in groups.chunk(num_processes)]
    return bool((torch.stack(seen).sum(0) > 1).any())


def sr_direction(fisher: Tensor, force: Tensor, last: Tensor, settings: SolveSettings) -> Direction:
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


def _weights(counts: Tensor, groups: Tensor, weights: Tensor | None) -> Tensor:
    """sqrt(c w / M) of every sample."""
    own = (counts / ((counts - 1.0) * counts.sum())).sqrt()[groups]
    return own if weights is None else own * weights.to(own).sqrt()
