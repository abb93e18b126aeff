"""How activations and normalizations of networks carry value, Jacobian and Laplacian."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_vfe.forward_laplacian.laplacian_tensor import LaplacianTensor, register, register_named
from lightning_vfe.forward_laplacian.linear_rules import check_from_end
from lightning_vfe.forward_laplacian.rules import pointwise


@register(torch.sigmoid, Tensor.sigmoid)
@pointwise
def _sigmoid(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    value = torch.sigmoid(x)
    first = value * (1.0 - value)
    return value, first, first * (1.0 - 2.0 * value)


@pointwise
def _silu_of_number(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    sigmoid = torch.sigmoid(x)
    slope = sigmoid * (1.0 - sigmoid)
    return x * sigmoid, sigmoid + x * slope, slope * (2.0 + x * (1.0 - 2.0 * sigmoid))


@register(nn.functional.silu)
def _silu(x: LaplacianTensor, inplace: bool = False) -> LaplacianTensor:
    """x sigmoid(x)."""
    del inplace  # nothing carried is changed in place; the result is the same
    return _silu_of_number(x)


@register(nn.functional.softplus)
def _softplus(x: LaplacianTensor, beta: float = 1.0, threshold: float = 20.0) -> LaplacianTensor:
    """ln(1 + exp(beta x)) / beta; as in PyTorch it is x itself where beta x is beyond the threshold."""

    @pointwise
    def of_number(number: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        is_line = beta * number > threshold
        slope = torch.sigmoid(beta * number)
        second = (beta * slope * (1.0 - slope)).masked_fill(is_line, 0.0)
        return nn.functional.softplus(number, beta, threshold), slope.masked_fill(is_line, 1.0), second

    return of_number(x)


@register_named("softmax")
@register(nn.functional.softmax)
def _softmax(x: LaplacianTensor, dim: int, dtype: torch.dtype | None = None, _stacklevel: int = 3) -> LaplacianTensor:
    """exp(x - c) / sum exp(x - c); c is the largest x, a constant, so that no exponential overflows."""
    if dtype is not None:
        raise NotImplementedError("softmax of a carried tensor keeps its dtype: leave out dtype")
    check_from_end("softmax", (dim,))
    weights = (x - x.detach().amax(dim, keepdim=True)).exp()
    normalized: LaplacianTensor = weights / weights.sum(dim, keepdim=True)
    return normalized


@register(nn.functional.layer_norm)
def _layer_norm(
    x: LaplacianTensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> LaplacianTensor:
    """(x - mean) / sqrt(variance + eps) over the features, times weight, plus bias."""
    if len(normalized_shape) != 1:
        raise NotImplementedError("layer_norm of a carried tensor runs over the last dimension only")
    count = float(normalized_shape[0])
    centred = x - x.sum(-1, keepdim=True) / count
    variance = centred.square().sum(-1, keepdim=True) / count
    result: LaplacianTensor = centred / (variance + eps).sqrt()
    result = result if weight is None else result * weight
    return result if bias is None else result + bias
