"""Layers of a network on plain or carried tensors, with few passes over the derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from lightning_vfe.forward_laplacian.laplacian_tensor import LaplacianTensor, TensorLike, value_of
from lightning_vfe.forward_laplacian.layout import (
    by_tangent,
    features_first,
    features_last,
    from_memory,
    num_indices,
    sum_of_squares,
    to_memory,
    weighted,
)

Input = tuple[TensorLike, Tensor]
"""x (..., N, G), plain or carried, and its weights (F, G)."""


def tanh_layer(
    inputs: Sequence[Input], bias: Tensor, shared: TensorLike | None = None, state: TensorLike | None = None
) -> Any:
    r"""state + tanh(sum_m A_m x_m + bias + shared), plain or carried; particles (..., N, F) or pairs (..., M, N, F).

    Args:
        inputs: x_m (..., N, G_m) with the weights A_m (F, G_m); carried ones agree in leading dimensions and layout.
        bias: (F,), or (M, N, F) for pairs.
        shared: for particles, the same for all N / S particles of a block.  # (..., S, F)
        state: added to the tanh; left out if None.  # (..., N, F)
    """
    if any(isinstance(x, LaplacianTensor) for x, _ in inputs):
        return _carried_layer(inputs, bias, shared, state)
    # One product of matrices for all inputs.
    x, weight = (parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1) for parts in zip(*inputs, strict=True))
    value = linear(x, weight, bias) if bias.ndim == 1 else linear(x, weight) + bias
    if shared is not None:
        value = (value.unflatten(-2, (shared.shape[-2], -1)) + shared.unsqueeze(-2)).flatten(-3, -2)
    if torch.is_grad_enabled():  # what is changed in place would be copied for the derivative
        return value.tanh() if state is None else state + value.tanh()
    new = value.tanh_()
    if state is None:
        return new
    return state + new if isinstance(state, LaplacianTensor) else new.add_(state)


def join_features(parts: Sequence[TensorLike]) -> Any:
    """Features of pairs (..., M, N, F_m), plain or carried, side by side along the last dimension.

    Plain ones are laid feature by feature in memory, as relative_vectors begins it: then they are copied in one go.
    """
    if any(isinstance(part, LaplacianTensor) for part in parts):
        carried: Any = list(parts)
        return torch.cat(carried, dim=-1)
    return torch.cat([part.movedim(-1, 0) for part in parts]).movedim(0, -1)


def block_means(x: Any, num_blocks: int) -> Any:
    """Means over blocks of consecutive particles, (..., S, F) from (..., N, F), plain or carried."""
    blocks = (num_blocks, -1)
    if not isinstance(x, LaplacianTensor):
        return x.unflatten(-2, blocks).mean(-2)
    value, laplacian = (part.unflatten(-2, blocks).mean(-2) for part in (x.value, x.laplacian))
    jacobian = to_memory(x.jacobian).unflatten(-2, blocks).mean(-2)
    return LaplacianTensor(value, from_memory(jacobian), laplacian)


def bilinear_scores(first: TensorLike, second: TensorLike, matrices: Tensor) -> Any:
    """u_i^T W_m v_j (..., m, M, N) of u (..., M, F), v (..., N, F) and W (m, F, F), plain or both carried."""
    num, width, _ = matrices.shape
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        turned = linear(first, matrices.mT.flatten(0, 1)).unflatten(-1, (num, width)).movedim(-2, -3)
        return turned @ second.unsqueeze(-3).mT
    if not (isinstance(first, LaplacianTensor) and isinstance(second, LaplacianTensor)):
        raise NotImplementedError("scores take two plain tensors or two carried ones, not one of each")
    rows, split = matrices.permute(2, 0, 1).flatten(0, 1), (num, first.shape[-2])
    v, lap_v, jac_v = features_first(second.value), features_first(second.laplacian), to_memory(second.jacobian)
    turned = weighted(rows, features_first(first.value)).unflatten(-2, (width, num)).flatten(-2)  # (..., F, m M)
    lap_turned = weighted(rows, features_first(first.laplacian)).unflatten(-2, (width, num)).flatten(-2)
    tangents = to_memory(first.jacobian)
    jac_turned = weighted(rows, tangents.flatten(-2)).unflatten(-1, tangents.shape[-2:])  # (..., F m, M, T)
    jac_turned = jac_turned.unflatten(-3, (width, num)).flatten(-3, -2)  # (..., F, m M, T)
    jacobian = (turned.mT @ jac_v.flatten(-2)).unflatten(-1, jac_v.shape[-2:])  # (..., m M, N, T)
    by_first = (v.mT @ jac_turned.flatten(-2)).unflatten(-1, jac_turned.shape[-2:])  # (..., N, m M, T)
    jacobian += by_first.transpose(-3, -2)
    crossed = (jac_turned @ jac_v.mT).sum(-3)  # (..., m M, N)
    laplacian = lap_turned.mT @ v + turned.mT @ lap_v + 2.0 * crossed
    value = (turned.mT @ v).unflatten(-2, split)
    jacobian = jacobian.unflatten(-3, split).movedim(-1, 0)
    return LaplacianTensor(value, jacobian, laplacian.unflatten(-2, split))


def opposite_spin_scores(pairs: TensorLike, weight: Tensor) -> Any:
    """w_m . (g_ij + g_ji) (..., m, N/2, N/2) of pair features g (..., N, N, F), plain or carried, and w (m, F).

    i are the first half of the electrons (up), j the second (down).
    """
    up = pairs.shape[-2] // 2
    # The sum over features comes first: few numbers are left of the pairs, and of their derivatives.
    both: Any = pairs
    scores = linear(both, weight).movedim(-1, -3)
    return scores[..., :up, up:] + scores[..., up:, :up].transpose(-2, -1)


def _carried_layer(
    inputs: Sequence[Input], bias: Tensor, shared: TensorLike | None, state: TensorLike | None
) -> LaplacianTensor:
    """In place wherever memory is new, for fresh memory is what tensors of this size cost most."""
    carried = [(x, weight) for x, weight in inputs if isinstance(x, LaplacianTensor)]
    layout, count = carried[0][0].layout, num_indices(carried[0][0])
    if any(x.layout != layout or x.shape[:-1] != carried[0][0].shape[:-1] for x, _ in carried):
        raise NotImplementedError("carried inputs of a layer agree in their layout and their leading dimensions")
    value, jacobian, laplacian = _argument(carried, count)
    for plain, weight in inputs:
        if not isinstance(plain, LaplacianTensor):
            value.add_(features_first(linear(plain, weight), count))
    value.add_(features_first(bias.expand(*(1,) * (count + 1 - bias.ndim), *bias.shape), count))
    if shared is not None:
        blocks = (shared.shape[-2], -1)
        value.unflatten(-1, blocks).add_(features_first(value_of(shared)).unsqueeze(-1))
    if isinstance(shared, LaplacianTensor):
        jacobian.unflatten(-2, blocks).add_(to_memory(shared.jacobian).unsqueeze(-2))
        laplacian.unflatten(-1, blocks).add_(features_first(shared.laplacian).unsqueeze(-1))
    new = value.tanh_()
    first = 1.0 - new.square()
    laplacian.addcmul_(new, sum_of_squares(jacobian, count), value=-2.0).mul_(first)
    jacobian.mul_(by_tangent(first, count))
    if state is not None:
        new.add_(features_first(value_of(state), count))
    if isinstance(state, LaplacianTensor):
        if state.layout != layout:
            raise NotImplementedError("the state of a layer has the layout of its inputs")
        jacobian.add_(to_memory(state.jacobian, count))
        laplacian.add_(features_first(state.laplacian, count))
    return LaplacianTensor(
        features_last(new, count), from_memory(jacobian, count), features_last(laplacian, count), layout
    )


def _argument(inputs: Sequence[tuple[LaplacianTensor, Tensor]], count: int) -> tuple[Tensor, Tensor, Tensor]:
    """sum_m A_m x_m with its Jacobian and Laplacian, arranged as in layout.py, in memory of their own."""
    value: Tensor | None = None
    jacobian: Tensor | None = None
    laplacian: Tensor | None = None
    for x, weight in inputs:
        first, second = features_first(x.value, count), features_first(x.laplacian, count)
        tangents = to_memory(x.jacobian, count)
        value = weighted(weight, first.flatten(-count), value)
        jacobian = weighted(weight, tangents.flatten(-1 - count), jacobian)
        laplacian = weighted(weight, second.flatten(-count), laplacian)
    assert value is not None
    assert jacobian is not None
    assert laplacian is not None
    particles, both = first.shape[-count:], tangents.shape[-1 - count :]
    return value.unflatten(-1, particles), jacobian.unflatten(-1, both), laplacian.unflatten(-1, particles)
