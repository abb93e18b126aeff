"""The inverse of one residual step of the flow: the x with x + Delta(x) = y."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_vfe.models.flow.jet import Jet

Step = Callable[[Tensor, Tensor, bool], Jet]
"""Delta and, where the last argument says so, its Jacobian, of positions (W, N, 3) in units of rs, as are all lengths
here, and conditions (W, k): -> (W, N, 3), (W, N, 3, 3N)."""

# Earlier iterates that Anderson mixing combines; with more of them hardly any evaluation is saved.
MEMORY = 10
# Anderson mixing gains a factor of about 5 per evaluation on trained flows, and needs 12 to 20 of them; a walker that
# has not arrived after this many is one for Newton.
MAX_MIXING = 40
MAX_NEWTON, MAX_HALVINGS = 40, 12


class InverseResult(NamedTuple):
    """Protons whose base coordinates are given, with the proof that they are."""

    x: Tensor
    """Protons in bohr, not wrapped: moving a z by a lattice vector moves its x by it. # (..., N, 3)"""
    converged: Tensor
    """Whether the residual is within the tolerance; the x of other walkers mean nothing. # (...)"""
    residual: Tensor
    """|to_base(x) - z| in bohr, over all coordinates of a walker. # (...)"""


def invert_step(
    step: Step, target: Tensor, condition: Tensor, tolerance: float, image: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Solve x + Delta(x) = target for every walker.

    By Anderson mixing first, which needs displacements only (a Jacobian costs as much as six of them, so that Newton
    steps do not pay); where that does not arrive, by Newton steps with the exact Jacobian and a line search.

    Args:
        step: Delta.
        target: y.  # (W, N, 3)
        condition: of the state points.  # (W, k)
        tolerance: largest |x + Delta(x) - y| over all coordinates of a walker.
        image: y + Delta(y) where it is known, which saves the first evaluation.  # (W, N, 3)

    Returns:
        x  # (W, N, 3), and whether it is within the tolerance  # (W,)
    """
    x, converged = _anderson(step, target, condition, tolerance, image)
    rest = (~converged).nonzero().squeeze(1)
    if len(rest):
        x[rest], converged[rest] = _newton(step, target[rest], condition[rest], tolerance)
    return x, converged


def _anderson(
    step: Step, target: Tensor, condition: Tensor, tolerance: float, image: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Anderson mixing of the fixed-point iteration x <- y - Delta(x), started at x = y.

    The next iterate is x + f - (dX + dF) c, with f = y - x - Delta(x), and c minimising |f - dF c| over the differences
    dX, dF to the last iterates and their residuals. Walkers that have arrived drop out of the work, after one more such
    update, which costs no evaluation.

    Source: Anderson, J. ACM 12, 547 (1965); Walker and Ni, SIAM J. Numer. Anal. 49, 1715 (2011).
    """
    solution, converged = target.clone(), target.new_zeros(len(target), dtype=torch.bool)
    active = torch.arange(len(target), device=target.device)
    x, before, history = target, None, target.new_empty(len(target), 0, 2, target.shape[1:].numel())
    for _ in range(MAX_MIXING):
        residual = target[active] - (x + step(x, condition[active], False).value if image is None else image)
        image = None
        now = torch.stack([x.flatten(1), residual.flatten(1)], dim=1)  # (W, 2, 3N)
        arrived = _arrived(now[:, 0], now[:, 1].norm(dim=-1), tolerance)
        if before is not None:
            history = torch.cat([history[:, -MEMORY + 1 :], _direction(now - before).unsqueeze(1)], dim=1)
        before = now
        x = _mixed(now, history).view_as(x)
        solution[active[arrived]] = x[arrived]
        converged[active[arrived]] = True
        away = ~arrived
        if not away.any():
            break
        if not away.all():
            x, before, history, active = x[away], before[away], history[away], active[away]
    return solution, converged


def _direction(difference: Tensor) -> Tensor:
    """(dX + dF, dF) of a pair of iterates, in units of |dF|.  # (W, 2, 3N)"""
    size = difference[:, 1:].norm(dim=-1, keepdim=True).clamp(min=torch.finfo(difference.dtype).tiny)
    direction: Tensor = torch.stack([difference.sum(1), difference[:, 1]], dim=1) / size
    return direction


def _mixed(now: Tensor, history: Tensor) -> Tensor:
    """The next iterate from (x, f) now  # (W, 2, 3N) and the directions before  # (W, M, 2, 3N)."""
    plain = now.sum(1)
    if history.shape[1] == 0:
        return plain
    change = history[:, :, 1]
    gram = change @ change.mT
    # Columns of length one; the shift keeps the system solvable when some of them are nearly dependent.
    gram.diagonal(dim1=-2, dim2=-1).add_(64 * torch.finfo(now.dtype).eps)
    weights, _ = torch.linalg.solve_ex(gram, change @ now[:, 1].unsqueeze(-1))
    mixed = plain - (weights.mT @ history[:, :, 0]).squeeze(1)
    # A broken walker must not stay so: it goes on from the plain iteration.
    return torch.where(torch.isfinite(mixed).all(-1, keepdim=True), mixed, plain)


def _newton(step: Step, target: Tensor, condition: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """Newton steps with the exact Jacobian, each halved until it brings the walker closer to its target."""
    identity = torch.eye(target.shape[1:].numel(), dtype=target.dtype, device=target.device)

    def missing(x: Tensor) -> tuple[Tensor, Tensor]:
        residual = (target - x - step(x, condition, False).value).flatten(1)
        return residual, residual.norm(dim=-1)

    x, (residual, distance) = target.clone(), missing(target)
    for _ in range(MAX_NEWTON):
        jacobian = step(x, condition, True).jacobian
        assert jacobian is not None
        direction, _ = torch.linalg.solve_ex(identity + jacobian.flatten(1, 2), residual.unsqueeze(-1))
        scale = torch.ones_like(distance)
        for _ in range(MAX_HALVINGS):
            candidate = x + (scale.unsqueeze(-1) * direction.squeeze(-1)).view_as(x)
            new_residual, new_distance = missing(candidate)
            closer = new_distance < distance
            if closer.all():
                break
            scale = torch.where(closer, scale, 0.5 * scale)
        x = torch.where(closer[:, None, None], candidate, x)
        residual = torch.where(closer[:, None], new_residual, residual)
        distance = torch.where(closer, new_distance, distance)
        if not (closer & (distance >= tolerance)).any():
            break
    return x, _arrived(x.flatten(1), distance, tolerance)


def _arrived(x: Tensor, distance: Tensor, tolerance: float) -> Tensor:
    """Whether walkers x (W, 3N) are close enough to their target.

    One that ran off so far that its distance is made of rounding errors is not.
    """
    arrived: Tensor = (distance < tolerance) & (torch.finfo(x.dtype).eps * x.norm(dim=-1) < tolerance)
    return arrived
