"""One residual step undone: the x with x + Delta(x) = y, by Anderson mixing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_vfe.models.flow.newton import Solver
from lightning_vfe.models.flow.step import Step

# Earlier iterates that are combined; with more of them hardly any evaluation is saved.
MEMORY = 10
# A factor of about 5 is gained per evaluation on trained flows, which then need 7 to 18 of them; a walker that has not
# arrived after this many is one for Newton. The second number is for all walkers where nobody looks at them.
MAX_MIXING, FIXED_MIXING = 40, 20
# What a step may leave over, in units of the tolerance: the last update leaves a fifth of it, and the later steps
# stretch that, though never far.
SHARE = 0.3
# Walkers that have arrived are left out of the work as soon as they are this part of it.
SMALLEST_SAVING = 0.25


def undo_step(
    step: Step, step_of: Callable[[Tensor], Step], target: Tensor, solver: Solver, image: Tensor | None = None
) -> Tensor:
    """Anderson mixing of the fixed-point iteration x <- y - Delta(x), started at x = y.

    The next iterate is x + f - (dX + dF) c, with f = y - x - Delta(x), and c minimising |f - dF c| over the differences
    dX, dF to the last iterates and their residuals. A walker that has arrived stays where one more such update, which
    costs no evaluation, brings it.

    Source: Anderson, J. ACM 12, 547 (1965); Walker and Ni, SIAM J. Numer. Anal. 49, 1715 (2011).

    Args:
        step: Delta of all walkers.
        step_of: Delta of some of them, by their rows.  # (R,)
        target: y.  # (W, N, 3)
        solver: tolerance and cost.
        image: y + Delta(y) where it is known, which saves the first evaluation.  # (W, N, 3)
    """
    solution, x, before = target, target, None
    rows = torch.arange(len(x), device=x.device)
    settled = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    memory = x.new_zeros(len(x), MEMORY, 2, x.shape[1:].numel())
    shift = torch.eye(MEMORY, dtype=x.dtype, device=x.device) * (64 * torch.finfo(x.dtype).eps)
    for iteration in range(MAX_MIXING if solver.waits else FIXED_MIXING):
        residual = (target - (step(x, False).image if image is None else image)).flatten(1)
        image = None
        size = torch.linalg.vector_norm(residual, dim=-1)
        now = torch.stack([x.flatten(1) + residual, residual], dim=1)  # (W, 2, 3 N)
        if before is not None:
            # The oldest one makes place.
            memory[:, iteration % MEMORY] = _direction(now - before)
        before = now
        x = torch.where(settled[:, None, None], x, _mixed(now, memory, shift).view_as(x))
        settled = settled | (size < SHARE * solver.tolerance)
        if not solver.waits:
            continue
        # Those that ran off to where nothing is a number cost no more than the others.
        away = (~settled & torch.isfinite(size)).nonzero().squeeze(1)
        if len(away) == 0:
            break
        if len(away) <= (1.0 - SMALLEST_SAVING) * len(x):
            solution, rows = solution.index_copy(0, rows, x), rows[away]
            x, target, settled = x[away], target[away], settled[away]
            before, memory, step = before[away], memory[away], step_of(rows)
    return solution.index_copy(0, rows, x)


def _direction(difference: Tensor) -> Tensor:
    """(dX + dF, dF) of a pair of iterates, in units of |dF|.  # (W, 2, 3 N)"""
    size = torch.linalg.vector_norm(difference[:, 1:], dim=-1, keepdim=True)
    direction: Tensor = difference / size.clamp(min=torch.finfo(difference.dtype).tiny)
    return direction


def _mixed(now: Tensor, memory: Tensor, shift: Tensor) -> Tensor:
    """The next iterate.

    Args:
        now: (x + f, f).  # (W, 2, 3 N)
        memory: the directions before, zero where there are none.  # (W, M, 2, 3 N)
        shift: # (M, M)
    """
    plain, residual = now[:, 0], now[:, 1]
    change = memory[:, :, 1]
    # Columns of length one; the shift keeps the system solvable when some of them are nearly dependent.
    gram = torch.baddbmm(shift, change, change.mT)
    weights, _ = torch.linalg.solve_ex(gram, torch.bmm(change, residual.unsqueeze(-1)))
    # Where there are no weights, the plain iteration continues.
    weights = weights.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    return torch.baddbmm(plain.unsqueeze(1), weights.mT, memory[:, :, 0], alpha=-1.0)
