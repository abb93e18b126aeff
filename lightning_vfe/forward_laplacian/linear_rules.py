"""How operations that are linear, and the same for every entry, carry value, Jacobian and Laplacian."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_vfe.forward_laplacian.laplacian_tensor import (
    LaplacianTensor,
    Rule,
    TensorLike,
    register,
    register_named,
    tangents_broadcast,
    value_of,
)
from lightning_vfe.forward_laplacian.layout import from_memory, num_indices, to_memory, weighted


def check_from_end(name: str, dims: Sequence[Any]) -> None:
    """The Jacobian has one more dimension in front: only dimensions from the end mean the same in all three parts."""
    flat = [d for each in dims for d in (each if isinstance(each, tuple | list) else (each,))]
    flat = [d for d in flat if isinstance(d, int) and not isinstance(d, bool)]
    if not flat or max(flat) >= 0:
        raise NotImplementedError(f"give the dimensions of {name} of a carried tensor from the end, as in {name}(-1)")


def _after_pairs(x: LaplacianTensor, dim: int | Sequence[int]) -> bool:
    assert x.layout is not None
    return isinstance(dim, int) and -(x.value.ndim - x.layout.num_dims) <= dim < 0


def _linear(function: Callable[..., Tensor], name: str) -> Rule:
    def rule(x: LaplacianTensor, *args: Any, **kwargs: Any) -> LaplacianTensor:
        dims = args[:1] if name == "unflatten" else args + tuple(kwargs.values())  # its second argument is a shape
        check_from_end(name, dims)
        if x.layout is not None:
            # A new last dimension, or a sum over features, leaves the pair indices where they are.
            keep = dims[0] == -1 if name == "unsqueeze" else name == "sum" and _after_pairs(x, dims[0])
            if not keep:
                x = x.dense()
        value, jacobian, laplacian = (function(part, *args, **kwargs) for part in (x.value, x.jacobian, x.laplacian))
        return LaplacianTensor(value, jacobian, laplacian, x.layout)

    return rule


for _name in ("unsqueeze", "unflatten", "transpose", "movedim", "flip", "sum", "mean"):
    register_named(_name)(_linear(getattr(torch, _name), _name))


@register(Tensor.__getitem__)
def _getitem(x: LaplacianTensor, index: Any) -> LaplacianTensor:
    if not (isinstance(index, tuple) and index[0] is Ellipsis):
        raise NotImplementedError("index carried tensors from the end: x[..., i]")
    x = x.dense()
    return LaplacianTensor(x.value[index], x.jacobian[index], x.laplacian[index])


@register(Tensor.expand_as)
def _expand_as(x: LaplacianTensor, other: TensorLike) -> LaplacianTensor:
    x = x.dense()
    shape = other.shape
    jacobian = tangents_broadcast(x.jacobian, len(shape)).expand(-1, *shape)
    return LaplacianTensor(x.value.expand(shape), jacobian, x.laplacian.expand(shape))


@register(torch.cat)
def _cat(tensors: Sequence[TensorLike], dim: int = 0) -> LaplacianTensor:
    check_from_end("cat", (dim,))
    carried = [t for t in tensors if isinstance(t, LaplacianTensor)]
    if len({t.layout for t in carried}) > 1 or (carried[0].layout is not None and not _after_pairs(carried[0], dim)):
        tensors = [t.dense() if isinstance(t, LaplacianTensor) else t for t in tensors]
    parts = _all_carried(tensors)
    value = torch.cat([p.value for p in parts], dim)
    jacobian = torch.cat([p.jacobian for p in parts], dim)
    return LaplacianTensor(value, jacobian, torch.cat([p.laplacian for p in parts], dim), parts[0].layout)


def _all_carried(tensors: Sequence[TensorLike]) -> list[LaplacianTensor]:
    """Plain tensors become constants with the tangents and the layout of the carried ones, which agree."""
    like = next(t for t in tensors if isinstance(t, LaplacianTensor))
    return [t if isinstance(t, LaplacianTensor) else _constant(t, like) for t in tensors]


def _constant(x: Tensor, like: LaplacianTensor) -> LaplacianTensor:
    zeros = torch.zeros_like(x)
    return LaplacianTensor(x, zeros.expand(len(like.jacobian), *x.shape), zeros, like.layout)


@register(torch.nn.functional.linear)
def _affine(x: LaplacianTensor, weight: Tensor, bias: Tensor | None = None) -> LaplacianTensor:
    linear, count = torch.nn.functional.linear, num_indices(x)
    tangents = to_memory(x.jacobian, count)
    product = weighted(weight, tangents.flatten(-1 - count)).unflatten(-1, tangents.shape[-1 - count :])
    return LaplacianTensor(
        linear(x.value, weight, bias), from_memory(product, count), linear(x.laplacian, weight), x.layout
    )


@register(torch.complex)
def _complex(real: TensorLike, imag: TensorLike) -> LaplacianTensor:
    real, imag = _all_carried([t.dense() if isinstance(t, LaplacianTensor) else t for t in (real, imag)])
    return LaplacianTensor(
        torch.complex(real.value, imag.value),
        torch.complex(real.jacobian, imag.jacobian),
        torch.complex(real.laplacian, imag.laplacian),
    )


@register(torch.where)
def _where(condition: Tensor, first: TensorLike, second: TensorLike) -> LaplacianTensor:
    """Chooses between a carried tensor and a constant."""
    if isinstance(first, LaplacianTensor) and isinstance(second, LaplacianTensor):
        raise NotImplementedError("where chooses between a carried tensor and a plain one, not between two carried")
    kept, chosen = (first, condition) if isinstance(first, LaplacianTensor) else (second, ~condition)
    assert isinstance(kept, LaplacianTensor)
    mask = chosen.to(kept.value.dtype)
    value = torch.where(condition, value_of(first), value_of(second))
    return LaplacianTensor(value, kept.jacobian * mask, kept.laplacian * mask, kept.layout)


for _function in (torch.zeros_like, torch.ones_like):
    register(_function)(lambda x, function=_function: function(x.value))
