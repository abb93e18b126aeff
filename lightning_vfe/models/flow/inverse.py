"""The inverse of a chain of residual steps, x_{k+1} = x_k + Delta_k(x_k): the first x of a given last one.

Lengths are in one unit, any; the flow takes the edge of the cell.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_vfe.models.flow.jet import Displacement, Jet
from lightning_vfe.models.flow.newton import Maps, Solver, distances, newton, through

# Earlier iterates that Anderson mixing combines; with more of them hardly any evaluation is saved.
MEMORY = 10
# Anderson mixing gains a factor of about 5 per evaluation on trained flows, and needs 7 to 18 of them; a walker that
# has not arrived after this many is one for Newton. The second number is for all walkers where nobody looks at them.
MAX_MIXING, BLIND_MIXING = 40, 20
MAX_NEWTON, BLIND_NEWTON = 12, 6
# Newton steps are made for this many walkers at most, or for this part of them where that is more; the last number is
# for where nobody looks.
MAX_REST, LARGEST_REST, BLIND_REST = 8, 1.0 / 4.0, 1.0 / 32.0


class InverseResult(NamedTuple):
    """Protons whose base coordinates are given, with the proof that they are."""

    x: Tensor
    """Protons in bohr, not wrapped: moving a z by a lattice vector moves its x by it. # (..., N, 3)"""
    converged: Tensor
    """Whether the residual is within the tolerance; the x of other walkers mean nothing. # (...)"""
    residual: Tensor
    """|to_base(x) - z| in bohr, over all coordinates of a walker. # (...)"""


def invert(
    maps: Maps,
    target: Tensor,
    condition: Tensor,
    solver: Solver,
    guess: Tensor | None = None,
    image: Tensor | None = None,
    more_starts: Callable[[Tensor], list[Tensor]] | None = None,
) -> InverseResult:
    """Find the x of every target, and verify each by the whole chain.

    Step by step first, from the last to the first, by Anderson mixing, which needs displacements only. Walkers that do
    not arrive, up to a fixed number of them, are left to Newton steps on the whole chain from several starts: what the
    mixing has found, the guess, the target, and those of `more_starts`.

    Args:
        maps: the chain.
        target: # (W, N, 3)
        condition: of the state points.  # (W, k)
        solver: tolerance and cost.
        guess: x near the solutions; unused where it is far.  # (W, N, 3)
        image: what the last step makes of the target, where it is known and there is no guess. It saves an evaluation.
            # (W, N, 3)
        more_starts: other x from which Newton steps may arrive at this target, (R, N, 3) -> (R, N, 3) each.

    Returns:
        x and residual in the unit of the target.
    """
    steps = maps(condition)
    x = _step_by_step(maps, steps, target, condition, solver, guess, image)
    residual = distances(through(steps, x), target)
    converged = _arrived(x, residual, solver.tolerance)
    rows = _rest(residual, converged, solver.waits)
    if rows is None:
        return InverseResult(x, converged, residual)
    goal, found = target[rows], x[rows]
    starts = [found, goal] if guess is None else [found, guess[rows], goal]
    starts += [] if more_starts is None else more_starts(goal)
    # A broken walker must not stay so.
    whole = torch.stack(starts, dim=1)
    whole = torch.where(torch.isfinite(whole).all(-1, keepdim=True).all(-2, keepdim=True), whole, goal.unsqueeze(1))
    num_steps = MAX_NEWTON if solver.waits else BLIND_NEWTON
    solved, distance = newton(maps, goal, condition[rows], whole, solver, num_steps)
    kept = converged[rows]
    x = x.index_copy(0, rows, torch.where(kept[:, None, None], found, solved))
    residual = residual.index_copy(0, rows, torch.where(kept | distance.isinf(), residual[rows], distance))
    return InverseResult(x, _arrived(x, residual, solver.tolerance), residual)


def invert_step(
    step: Callable[[Tensor, Tensor, bool], Jet],
    target: Tensor,
    condition: Tensor,
    tolerance: float,
    image: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Solve x + Delta(x) = target of a single step.

    Args:
        step: Delta and, where the last argument says so, its Jacobian, of positions and conditions.
        target: # (W, N, 3)
        condition: of the state points.  # (W, k)
        tolerance: as in `Solver`.
        image: as in `invert`.

    Returns:
        x  # (W, N, 3), and whether it is within the tolerance  # (W,)
    """

    def maps(condition: Tensor) -> list[Displacement]:
        return [lambda x, with_jacobian: step(x, condition, with_jacobian)]

    found = invert(maps, target, condition, Solver(tolerance), image=image)
    return found.x, found.converged


def _step_by_step(
    maps: Maps,
    steps: list[Displacement],
    target: Tensor,
    condition: Tensor,
    solver: Solver,
    guess: Tensor | None,
    image: Tensor | None,
) -> Tensor:
    """Undo the steps one after the other.  # (W, N, 3)"""
    passed = None if guess is None else _passed(steps, guess)
    x = target
    for index in reversed(range(len(steps))):
        start = None if passed is None else passed[index] + (x - passed[index + 1])
        solved = _anderson(maps, index, steps[index], x, condition, solver, start, image)
        # The same step once more: what it makes of the x that it starts from is where it came from.
        again = index > 0 and steps[index - 1] is steps[index] and passed is None
        x, image = solved, x if again else None
    return x


def _passed(steps: list[Displacement], x: Tensor) -> list[Tensor]:
    """x and its images under more and more of the steps."""
    images = [x]
    for step in steps:
        images.append(images[-1] + step(images[-1], False).value)
    return images


def _anderson(
    maps: Maps,
    index: int,
    step: Displacement,
    target: Tensor,
    condition: Tensor,
    solver: Solver,
    start: Tensor | None,
    image: Tensor | None,
) -> Tensor:
    """Anderson mixing of the fixed-point iteration x <- y - Delta(x) for one step, started at x = y where not told.

    The next iterate is x + f - (dX + dF) c, with f = y - x - Delta(x), and c minimising |f - dF c| over the differences
    dX, dF to the last iterates and their residuals. A walker that has arrived stays where one more such update, which
    costs no evaluation, brings it.

    Source: Anderson, J. ACM 12, 547 (1965); Walker and Ni, SIAM J. Numer. Anal. 49, 1715 (2011).
    """
    # The later steps stretch what a step leaves over, though never far.
    tolerance = 0.1 * solver.tolerance
    solution, rows, x = target, None, target if start is None else start
    settled = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    memory = x.new_zeros(len(x), MEMORY, 2, x.shape[1:].numel())
    shift = torch.eye(MEMORY, dtype=x.dtype, device=x.device) * (64 * torch.finfo(x.dtype).eps)
    before = None
    for iteration in range(MAX_MIXING if solver.waits else BLIND_MIXING):
        residual = (target - (x + step(x, False).value if image is None else image)).flatten(1)
        image = None
        size = torch.linalg.vector_norm(residual, dim=-1)
        now = torch.stack([x.flatten(1) + residual, residual], dim=1)  # (W, 2, 3 N)
        if before is not None:
            # The oldest one makes place.
            memory[:, iteration % MEMORY] = _direction(now - before)
        before = now
        x = torch.where(settled[:, None, None], x, _mixed(now, memory, shift).view_as(x))
        settled = settled | (size < tolerance)
        if not solver.waits:
            continue
        # Those that ran off to where nothing is a number cost no more than the others.
        away = ~settled & torch.isfinite(size)
        left = int(away.sum())
        if left == 0:
            break
        if 2 * left <= len(x):
            solution = x if rows is None else solution.index_copy(0, rows, x)
            places = away.nonzero().squeeze(1)
            rows = places if rows is None else rows[places]
            x, target, condition, settled = x[places], target[places], condition[places], settled[places]
            before, memory, step = before[places], memory[places], maps(condition)[index]
    return x if rows is None else solution.index_copy(0, rows, x)


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
    # Where there are no weights, the plain iteration goes on.
    weights = weights.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    return torch.baddbmm(plain.unsqueeze(1), weights.mT, memory[:, :, 0], alpha=-1.0)


def _rest(residual: Tensor, converged: Tensor, waits: bool) -> Tensor | None:
    """Those that have not arrived, the nearest ones first, up to the number that Newton steps are made for.

    Others follow where there are fewer. None where the host sees that there are none.  # (R,)
    """
    part = LARGEST_REST if waits else BLIND_REST
    number = min(len(residual), max(MAX_REST, math.ceil(part * len(residual))))
    if waits:
        number = min(number, int((~converged).sum()))
    if number == 0:
        return None
    distance = torch.where(converged, torch.inf, residual.nan_to_num(nan=torch.finfo(residual.dtype).max))
    return distance.topk(number, largest=False).indices


def _arrived(x: Tensor, residual: Tensor, tolerance: float) -> Tensor:
    """Whether walkers are close enough to their target.  # (W, N, 3), (W,) -> (W,)

    One that ran off so far that its residual is made of rounding errors is not.
    """
    size = torch.linalg.vector_norm(x.flatten(1), dim=-1)
    arrived: Tensor = (residual < tolerance) & (torch.finfo(x.dtype).eps * size < tolerance)
    return arrived
