"""How functions of a number, products and determinants carry value, Jacobian and Laplacian: one rule each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lightning_vfe.forward_laplacian.laplacian_tensor import (
    RULES,
    LaplacianTensor,
    Operand,
    TensorLike,
    register,
    register_named,
    tangents_broadcast,
    value_of,
)

# --- functions of one number ----------------------------------------------------------------------------------------


def pointwise(
    derivatives: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]],
) -> Callable[[LaplacianTensor], LaplacianTensor]:
    """The rule of a function of one number: J = f' J_x and lap = f' lap_x + f'' sum_tangents J_x^2.

    Args:
        derivatives: gives f, f' and f'' of a tensor (...), each (...). Complex numbers need an analytic f.
    """

    def rule(x: LaplacianTensor) -> LaplacianTensor:
        value, first, second = derivatives(x.value)
        laplacian = first * x.laplacian + second * x.jacobian.square().sum(0)
        return LaplacianTensor(value, first * x.jacobian, laplacian, x.layout)

    return rule


@register_named("tanh")
@pointwise
def _tanh(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    value = torch.tanh(x)
    first = 1.0 - value.square()
    return value, first, -2.0 * value * first


@register_named("sin")
@pointwise
def _sin(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    value = torch.sin(x)
    return value, torch.cos(x), -value


@register_named("cos")
@pointwise
def _cos(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    value = torch.cos(x)
    return value, -torch.sin(x), -value


@register_named("exp")
@pointwise
def _exp(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    value = torch.exp(x)
    return value, value, value


@register_named("log")
@pointwise
def _log(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    inverse = 1.0 / x
    return torch.log(x), inverse, -inverse.square()


@register_named("sqrt")
@pointwise
def _sqrt(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    value = torch.sqrt(x)
    first = 0.5 / value
    return value, first, -0.5 * first / x


@register_named("square")
@pointwise
def _square(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x.square(), 2.0 * x, torch.full_like(x, 2.0)


@register_named("reciprocal")
@pointwise
def _reciprocal(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    value = 1.0 / x
    squared = value.square()
    return value, -squared, 2.0 * value * squared


# --- functions of two arguments -------------------------------------------------------------------------------------


def _align(a: Operand, b: Operand) -> tuple[Operand, Operand]:
    """Both in the same layout; dense if they differ."""
    if isinstance(a, LaplacianTensor) and isinstance(b, LaplacianTensor) and a.layout != b.layout:
        return a.dense(), b.dense()
    return a, b


@register(torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__)
def _add(a: Operand, b: Operand) -> LaplacianTensor:
    a, b = _align(a, b)
    value = value_of(a) + value_of(b)
    jacobian, laplacian, layout = None, None, None
    for term in (a, b):
        if isinstance(term, LaplacianTensor):
            layout = term.layout and term.layout.with_leading(value.ndim - term.value.ndim)
            j = tangents_broadcast(term.jacobian, value.ndim)
            jacobian = j if jacobian is None else jacobian + j
            laplacian = term.laplacian if laplacian is None else laplacian + term.laplacian
    assert jacobian is not None
    assert laplacian is not None
    return LaplacianTensor(value, jacobian.expand(-1, *value.shape), laplacian.expand(value.shape), layout)


@register(torch.sub, Tensor.sub, Tensor.__sub__, Tensor.__rsub__)
def _sub(a: Operand, b: Operand) -> LaplacianTensor:
    return _add(a, -b)


@register(torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__)
def _mul(a: Operand, b: Operand) -> LaplacianTensor:
    return _bilinear(torch.mul, a, b)


@register(torch.div, Tensor.div, Tensor.__truediv__, Tensor.__rtruediv__)
def _div(a: Operand, b: Operand) -> LaplacianTensor:
    return _mul(a, _reciprocal(b) if isinstance(b, LaplacianTensor) else 1.0 / b)


@register(torch.matmul, Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__)
def _matmul(a: TensorLike, b: TensorLike) -> LaplacianTensor:
    a, b = (x.dense() if isinstance(x, LaplacianTensor) else x for x in (a, b))
    return _bilinear(torch.matmul, a, b)


@register(torch.einsum)
def _einsum(equation: str, a: TensorLike, b: TensorLike) -> LaplacianTensor:
    """A product of two tensors.

    The tangents get a letter of their own, so that the ranks of the arguments may differ and the second derivatives
    are summed over tangents without forming them.
    """
    operands, _, out = equation.partition("->")
    terms = operands.split(",")
    if len(terms) != 2 or not out or "T" in equation:
        raise NotImplementedError(f"carried einsum takes two tensors, an arrow and no letter T, not {equation!r}")
    a, b = (x.dense() if isinstance(x, LaplacianTensor) else x for x in (a, b))
    first, second = terms
    value = torch.einsum(equation, value_of(a), value_of(b))
    jacobian: Any = 0.0
    laplacian: Any = 0.0
    if isinstance(a, LaplacianTensor):
        jacobian = jacobian + torch.einsum(f"T{first},{second}->T{out}", a.jacobian, value_of(b))
        laplacian = laplacian + torch.einsum(equation, a.laplacian, value_of(b))
    if isinstance(b, LaplacianTensor):
        jacobian = jacobian + torch.einsum(f"{first},T{second}->T{out}", value_of(a), b.jacobian)
        laplacian = laplacian + torch.einsum(equation, value_of(a), b.laplacian)
    if isinstance(a, LaplacianTensor) and isinstance(b, LaplacianTensor):
        laplacian = laplacian + 2.0 * torch.einsum(f"T{first},T{second}->{out}", a.jacobian, b.jacobian)
    return LaplacianTensor(value, jacobian, laplacian)


def _bilinear(product: Callable[[Any, Any], Tensor], a: Operand, b: Operand) -> LaplacianTensor:
    """lap(a b) = lap(a) b + 2 sum_tangents J_a J_b + a lap(b)."""
    a, b = _align(a, b)
    value = product(value_of(a), value_of(b))
    if isinstance(a, LaplacianTensor) and isinstance(b, LaplacianTensor):
        jac_a, jac_b = (tangents_broadcast(x.jacobian, value.ndim) for x in (a, b))
        jacobian = product(jac_a, b.value) + product(a.value, jac_b)
        laplacian = product(a.laplacian, b.value) + product(a.value, b.laplacian) + 2.0 * product(jac_a, jac_b).sum(0)
        source = a
    elif isinstance(a, LaplacianTensor):
        jacobian = product(tangents_broadcast(a.jacobian, value.ndim), b)
        laplacian, source = product(a.laplacian, b), a
    else:
        assert isinstance(b, LaplacianTensor)
        jacobian = product(a, tangents_broadcast(b.jacobian, value.ndim))
        laplacian, source = product(a, b.laplacian), b
    layout = source.layout and source.layout.with_leading(value.ndim - source.value.ndim)
    return LaplacianTensor(value, jacobian, laplacian, layout)


# --- determinants ---------------------------------------------------------------------------------------------------


@register(torch.linalg.slogdet)
def _slogdet(a: LaplacianTensor) -> tuple[LaplacianTensor, LaplacianTensor]:
    """Phase and ln|det| of complex matrices (..., n, n), from the derivatives of ln det.

    d ln det A = tr(A^-1 dA),    lap ln det A = tr(A^-1 lap A) - sum_tangents tr[(A^-1 dA)^2].
    """
    a = a.dense()
    phase, log_abs = torch.linalg.slogdet(a.value)
    inverse = torch.linalg.inv_ex(a.value).inverse  # not finite, instead of an error, where det A = 0
    product = inverse @ a.jacobian  # (3N, ..., n, n)
    jacobian = product.diagonal(dim1=-2, dim2=-1).sum(-1)
    squares = torch.einsum("d...ij,d...ji->...", product, product)
    laplacian = torch.einsum("...ij,...ji->...", inverse, a.laplacian) - squares
    turn = LaplacianTensor(1j * torch.angle(phase), 1j * jacobian.imag, 1j * laplacian.imag)
    return RULES[torch.exp](turn), LaplacianTensor(log_abs, jacobian.real, laplacian.real)
