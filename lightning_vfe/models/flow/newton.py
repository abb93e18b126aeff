"""Newton steps on a whole chain of residual steps, from several starts at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_vfe.models.flow.chain import through, through_with_jacobian
from lightning_vfe.models.flow.step import StepsAt

# The parts of a Newton step that are tried; the one that brings a walker closest to its target is taken.
FRACTIONS = (1.0, 0.35, 0.1)
# Steps from a start, at most. Those that arrive take 1 to 10.
MAX_NEWTON, FIXED_NEWTON = 12, 6
# A step that leaves more than this part of the distance is the last one of its start.
SMALLEST_GAIN = 0.95


@dataclass(frozen=True)
class Solver:
    """How to solve for the x of a target.

    Attributes:
        tolerance: largest |image of x - target| over all coordinates of a walker.
        reach: longest way of an atom in one Newton step.
        waits: whether the host looks at the walkers, so that it can leave out those that have arrived, and stop. On a
            CPU that costs nothing. Where it does not, all walkers get the same fixed number of evaluations, and no
            operation waits for the device.
    """

    tolerance: float
    reach: float = 0.5
    waits: bool = True


def newton(
    steps_at: StepsAt, target: Tensor, condition: Tensor, starts: Tensor, solver: Solver
) -> tuple[Tensor, Tensor]:
    """Find an x of each target by Newton steps with the exact Jacobian of the chain, from all starts at once.

    Where the host looks, a start is given up as soon as a step gains too little, or another start has arrived. What
    becomes of a walker does not depend on the others.

    Args:
        steps_at: the chain.
        target: # (R, N, 3)
        condition: of the state points.  # (R, k)
        starts: # (R, S, N, 3)
        solver: tolerance and reach.

    Returns:
        The x of the first start that has arrived, or of the one that came closest  # (R, N, 3), and its |image of x -
        target|, infinite where nothing is a number  # (R,)
    """
    shape = starts.shape[:2]
    x, goal = starts.flatten(0, 1), target.unsqueeze(1).expand_as(starts).flatten(0, 1)
    condition = condition.unsqueeze(1).expand(*shape, -1).flatten(0, 1)
    distance = distances(through(steps_at(condition), x), goal).nan_to_num(nan=torch.inf)
    rows = torch.arange(len(x), device=x.device)
    for _ in range(MAX_NEWTON if solver.waits else FIXED_NEWTON):
        before, old = x[rows], distance[rows]
        candidate, closest = _newton_step(steps_at, before, goal[rows], condition[rows], solver.reach)
        closer = closest < old
        x = x.index_copy(0, rows, torch.where(closer[:, None, None], candidate, before))
        distance = distance.index_copy(0, rows, torch.where(closer, closest, old))
        if solver.waits:
            unsolved = (distance.view(shape) >= solver.tolerance).all(1, keepdim=True).expand(shape).flatten()
            rows = rows[(closest < SMALLEST_GAIN * old) & unsolved[rows]]
            if not len(rows):
                break
    distance = distance.view(shape)
    order = torch.arange(shape[1], dtype=x.dtype, device=x.device)
    place = torch.where(distance < solver.tolerance, order, shape[1] + distance).argmin(1)
    x = x.view(starts.shape).gather(1, place.view(-1, 1, 1, 1).expand(-1, 1, *starts.shape[2:])).squeeze(1)
    return x, distance.gather(1, place.unsqueeze(1)).squeeze(1)


def _newton_step(
    steps_at: StepsAt, x: Tensor, target: Tensor, condition: Tensor, reach: float
) -> tuple[Tensor, Tensor]:
    """The best of a few fractions of a Newton step, and its distance from the target.  # (W, N, 3), (W,)"""
    image, jacobian = through_with_jacobian(steps_at(condition), x)
    direction, _ = torch.linalg.solve_ex(jacobian, (target - image).flatten(1).unsqueeze(-1))
    direction = direction.view_as(x)
    longest = torch.linalg.vector_norm(direction, dim=-1, keepdim=True).amax(1, keepdim=True)
    direction = direction * (reach / longest).clamp(max=1.0)
    candidates = torch.stack([x + fraction * direction for fraction in FRACTIONS])  # (F, W, N, 3)
    images = through(steps_at(condition.repeat(len(FRACTIONS), 1)), candidates.flatten(0, 1))
    best, place = distances(images.view_as(candidates), target).nan_to_num(nan=torch.inf).min(0)
    return candidates.gather(0, place.view(1, -1, 1, 1).expand(1, *x.shape)).squeeze(0), best


def distances(image: Tensor, target: Tensor) -> Tensor:
    """Over all coordinates of a walker.  # (..., N, 3) -> (...)"""
    found: Tensor = torch.linalg.vector_norm((image - target).flatten(-2), dim=-1)
    return found
