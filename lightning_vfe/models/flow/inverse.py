"""The inverse of a chain of residual steps, x_{k+1} = x_k + Delta_k(x_k): the first x of a given last one.

Lengths are in one unit, any; the flow takes the edge of the cell.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from lightning_vfe.models.flow.anderson import undo_step
from lightning_vfe.models.flow.chain import through
from lightning_vfe.models.flow.newton import Solver, distances, newton
from lightning_vfe.models.flow.result import InverseResult
from lightning_vfe.models.flow.step import Step, StepsAt

# Where the host does not look, Newton steps are made for this part of the walkers, and for this many at least.
FIXED_REST, SMALLEST_REST = 1.0 / 32.0, 8


def invert(
    steps_at: StepsAt,
    target: Tensor,
    condition: Tensor,
    solver: Solver,
    other_start: Callable[[Tensor], Tensor] = lambda target: target,
) -> InverseResult:
    """Find the x of every target, and verify each by the whole chain.

    Step by step first, from the last to the first, by Anderson mixing, which needs displacements only: a Jacobian costs
    as much as six of them. Walkers that do not arrive are left to Newton steps on the whole chain, which start from
    where the mixing has come, and from another place. Where the host looks, what becomes of a walker does not depend on
    the others; where it does not, only the nearest ones of those that are left get Newton steps, see `_rest`.

    Args:
        steps_at: the chain.
        target: # (W, N, 3)
        condition: of the state points.  # (W, k)
        solver: tolerance and cost.
        other_start: where else Newton steps start from, for some targets: (R, N, 3) -> (R, N, 3).

    Returns:
        x and residual in the unit of the target.
    """
    steps = steps_at(condition)
    x = _step_by_step(steps_at, steps, target, condition, solver)
    residual = distances(through(steps, x), target)
    mixed = x
    starts: list[Callable[[Tensor], Tensor]] = [
        lambda rows: _finite(mixed[rows], target[rows]),
        lambda rows: other_start(target[rows]),
    ]
    # A host that looks needs the other start only for those that the first one leaves over.
    for group in [[start] for start in starts] if solver.waits else [starts]:
        arrived = _arrived(x, residual, solver.tolerance)
        rows = _rest(residual, arrived, solver.waits)
        if rows is None:
            break
        found = torch.stack([start(rows) for start in group], dim=1)
        solved, distance = newton(steps_at, target[rows], condition[rows], found, solver)
        closer = (distance < residual[rows].nan_to_num(nan=torch.inf)) & ~arrived[rows]
        x = x.index_copy(0, rows, torch.where(closer[:, None, None], solved, x[rows]))
        residual = residual.index_copy(0, rows, torch.where(closer, distance, residual[rows]))
    return InverseResult(x, _arrived(x, residual, solver.tolerance), residual)


def _step_by_step(steps_at: StepsAt, steps: list[Step], target: Tensor, condition: Tensor, solver: Solver) -> Tensor:
    """Undo the steps one after the other.  # (W, N, 3)"""
    x, image = target, None
    for index in reversed(range(len(steps))):
        step_of = functools.partial(_step_of, steps_at, index, condition)
        solved = undo_step(steps[index], step_of, x, solver, image)
        # The same step once more: what it makes of the x that it starts from is where it came from.
        x, image = solved, x if index > 0 and steps[index - 1] is steps[index] else None
    return x


def _step_of(steps_at: StepsAt, index: int, condition: Tensor, rows: Tensor) -> Step:
    """A step of some of the walkers.  # (W, k), (R,)"""
    return steps_at(condition[rows])[index]


def _finite(x: Tensor, target: Tensor) -> Tensor:
    """x, and the target of those that ran off to where nothing is a number.  # (R, N, 3)"""
    return torch.where(torch.isfinite(x).flatten(1).all(1)[:, None, None], x, target)


def _rest(residual: Tensor, arrived: Tensor, waits: bool) -> Tensor | None:
    """Those that get Newton steps.  # (R,)

    All that have not arrived where the host looks, and None where there are none. Else a fixed number, the nearest ones
    first, and others where there are fewer.
    """
    if waits:
        rows = (~arrived).nonzero().squeeze(1)
        return rows if len(rows) else None
    number = min(len(residual), max(SMALLEST_REST, math.ceil(FIXED_REST * len(residual))))
    distance = torch.where(arrived, torch.inf, residual.nan_to_num(nan=torch.finfo(residual.dtype).max))
    return distance.topk(number, largest=False).indices


def _arrived(x: Tensor, residual: Tensor, tolerance: float) -> Tensor:
    """Whether walkers are close enough to their target.  # (W, N, 3), (W,) -> (W,)

    One that ran off so far that its residual is made of rounding errors is not.
    """
    size = torch.linalg.vector_norm(x.flatten(1), dim=-1)
    arrived: Tensor = (residual < tolerance) & (torch.finfo(x.dtype).eps * size < tolerance)
    return arrived
