"""A chain of residual steps, x_{k+1} = x_k + Delta_k(x_k): the image of positions, and how it changes with them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_vfe.models.flow.result import FlowResult
from lightning_vfe.models.flow.step import Step


def through(steps: Sequence[Step], x: Tensor) -> Tensor:
    """The image of x.  # (W, N, 3) -> (W, N, 3)"""
    for step in steps:
        x = step(x, False).image
    return x


def through_with_jacobian(steps: Sequence[Step], x: Tensor) -> tuple[Tensor, Tensor]:
    """The image of x, and its Jacobian.  # (W, N, 3) -> (W, N, 3), (W, 3 N, 3 N)"""
    identity = torch.eye(x.shape[1:].numel(), dtype=x.dtype, device=x.device)
    total = identity.expand(len(x), -1, -1)
    for step in steps:
        x, jacobian = step(x, True)
        assert jacobian is not None
        total = torch.bmm(identity + jacobian.flatten(1, 2), total)
    return x, total


def through_with_log_det(steps: Sequence[Step], x: Tensor) -> FlowResult:
    """The image of x, and ln|det| = sum_k ln|det(I + d Delta_k / d x_k)|.  # (W, N, 3)"""
    jacobians = []
    for step in steps:
        x, jacobian = step(x, True)
        jacobians.append(jacobian)
    sign, log_abs_det = _determinants(jacobians)
    return FlowResult(x, log_abs_det.sum(0), sign.prod(0))


def through_midpoints(first: Step, others: Sequence[Step], repeats: int, x: Tensor) -> FlowResult:
    """A step, and n repetitions of each of the others as one step of the midpoint rule.

    Args:
        first: a step that is not repeated.
        others: those that are.
        repeats: n.
        x: # (W, N, 3)
    """
    x, jacobian = first(x, True)
    jacobians = [jacobian]
    for step in others:
        middle = x if repeats == 1 else torch.lerp(x, step(x, False).image, 0.5 * (repeats - 1))
        image, jacobian = step(middle, True)
        x = x + repeats * (image - middle)
        jacobians.append(jacobian)
    sign, log_abs_det = _determinants(jacobians)
    return FlowResult(x, log_abs_det[0] + repeats * log_abs_det[1:].sum(0), sign[0] * sign[1:].prod(0) ** repeats)


def _determinants(jacobians: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
    """Sign and ln|det(I + d Delta / d x)| of several steps.  # (W, N, 3, 3 N) each -> (steps, W)"""
    changes = torch.stack([jacobian for jacobian in jacobians if jacobian is not None]).flatten(2, 3)
    identity = torch.eye(changes.shape[-1], dtype=changes.dtype, device=changes.device)
    sign, log_abs_det = torch.linalg.slogdet(changes + identity)
    return sign, log_abs_det
