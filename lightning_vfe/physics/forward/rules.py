"""How each tensor operation carries value, Jacobian and Laplacian. A rule is written once and found by function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lightning_vfe.physics.forward.carried import RULES, Carried, Rule


def _register(*functions: Any) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        for function in functions:
            RULES[function] = rule
        return rule

    return register


def _register_named(*names: str) -> Callable[[Rule], Rule]:
    """Register for the function and the tensor method of each name."""
    functions = [getattr(space, name) for name in names for space in (torch, Tensor) if hasattr(space, name)]
    return _register(*functions)


# --- operations that are linear and the same for every entry -------------------------------------------------------

def _after_pairs(x: Carried, dim: Any) -> bool:
    assert x.layout is not None
    return isinstance(dim, int) and -(x.value.ndim - x.layout.num_dims) <= dim < 0


def _linear(function: Callable[..., Tensor], name: str) -> Rule:
    def rule(x: Carried, *args: Any, **kwargs: Any) -> Carried:
        dims = args + tuple(value for key, value in kwargs.items() if key == "dim")
        if x.layout is not None:
            # A new last dimension, or a sum over features, leaves the pair indices where they are.
            if name == "unsqueeze":
                keep = dims[0] == -1
            else:
                keep = name == "sum" and bool(dims) and _after_pairs(x, dims[0])
            if not keep:
                x = x.dense()
        parts = (function(part, *args, **kwargs) for part in (x.value, x.jacobian, x.laplacian))
        return Carried(*parts, layout=x.layout)

    return rule


for _name in ("unsqueeze", "transpose", "movedim", "sum", "mean"):
    _register_named(_name)(_linear(getattr(torch, _name), _name))


@_register(Tensor.__getitem__)
def _getitem(x: Carried, index: Any) -> Carried:
    if not (isinstance(index, tuple) and index[0] is Ellipsis):
        raise NotImplementedError("index carried tensors from the end: x[..., i]")
    x = x.dense()
    return Carried(x.value[index], x.jacobian[index], x.laplacian[index])


@_register(Tensor.expand_as)
def _expand_as(x: Carried, other: Any) -> Carried:
    x = x.dense()
    shape = other.shape
    return Carried(x.value.expand(shape), x.jacobian.expand(-1, *shape), x.laplacian.expand(shape))


@_register(torch.cat)
def _cat(tensors: Any, dim: int = 0) -> Carried:
    carried = [t for t in tensors if isinstance(t, Carried)]
    layout = carried[0].layout
    if layout is not None and not all(t.layout == layout and _after_pairs(t, dim) for t in carried):
        carried, tensors, layout = [], [t.dense() if isinstance(t, Carried) else t for t in tensors], None
        carried = [t for t in tensors if isinstance(t, Carried)]
    num_tangents = len(carried[0].jacobian)
    parts = [t if isinstance(t, Carried) else _constant(t, num_tangents) for t in tensors]
    value = torch.cat([p.value for p in parts], dim)
    jacobian = torch.cat([p.jacobian for p in parts], dim)
    return Carried(value, jacobian, torch.cat([p.laplacian for p in parts], dim), layout)


def _constant(x: Tensor, num_tangents: int) -> Carried:
    zeros = torch.zeros_like(x)
    return Carried(x, zeros.expand(num_tangents, *x.shape), zeros)


@_register(torch.nn.functional.linear)
def _affine(x: Carried, weight: Tensor, bias: Tensor | None = None) -> Carried:
    linear = torch.nn.functional.linear
    return Carried(linear(x.value, weight, bias), linear(x.jacobian, weight), linear(x.laplacian, weight), x.layout)


@_register(torch.complex)
def _complex(real: Carried, imag: Carried) -> Carried:
    real, imag = real.dense(), imag.dense()
    pairs = ((real.value, imag.value), (real.jacobian, imag.jacobian), (real.laplacian, imag.laplacian))
    return Carried(*(torch.complex(a, b) for a, b in pairs))


@_register(torch.where)
def _where(condition: Tensor, first: Any, second: Any) -> Carried:
    """Chooses between a carried tensor and a constant."""
    kept = first if isinstance(first, Carried) else second
    mask = (condition if kept is first else ~condition).to(kept.value.dtype)
    return Carried(torch.where(condition, *(_value(t) for t in (first, second))),
                   kept.jacobian * mask, kept.laplacian * mask, kept.layout)  # fmt: skip


for _function in (torch.zeros_like, torch.ones_like):
    _register(_function)(lambda x, function=_function: function(x.value))


def _value(x: Any) -> Any:
    return x.value if isinstance(x, Carried) else x


# --- functions of one number ----------------------------------------------------------------------------------------


def _pointwise(derivatives: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]) -> Rule:
    """f(x) with J = f' J_x and lap = f' lap_x + f'' sum_tangents J_x^2; `derivatives` gives f, f', f''."""

    def rule(x: Carried) -> Carried:
        value, first, second = derivatives(x.value)
        laplacian = first * x.laplacian + second * _contract(x.jacobian, x.jacobian)
        return Carried(value, first * x.jacobian, laplacian, x.layout)

    return rule


def _contract(a: Tensor, b: Tensor) -> Tensor:
    """sum over tangents of a b, without forming the product where the shapes agree."""
    if a.shape == b.shape:
        return torch.einsum("d...,d...->...", a, b)
    return (a * b).sum(0)


@_register_named("tanh")
@_pointwise
def _tanh(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    value = torch.tanh(x)
    first = 1.0 - value.square()
    return value, first, -2.0 * value * first


@_register_named("sin")
@_pointwise
def _sin(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    value = torch.sin(x)
    return value, torch.cos(x), -value


@_register_named("cos")
@_pointwise
def _cos(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    value = torch.cos(x)
    return value, -torch.sin(x), -value


@_register_named("exp")
@_pointwise
def _exp(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    value = torch.exp(x)
    return value, value, value


@_register_named("log")
@_pointwise
def _log(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    inverse = 1.0 / x
    return torch.log(x), inverse, -inverse.square()


@_register_named("sqrt")
@_pointwise
def _sqrt(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    value = torch.sqrt(x)
    first = 0.5 / value
    return value, first, -0.5 * first / x


@_register_named("square")
@_pointwise
def _square(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x.square(), 2.0 * x, torch.full_like(x, 2.0)


@_register_named("reciprocal")
@_pointwise
def _reciprocal(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    value = 1.0 / x
    squared = value.square()
    return value, -squared, 2.0 * value * squared


# --- functions of two arguments -------------------------------------------------------------------------------------


def _align(a: Any, b: Any) -> tuple[Any, Any]:
    """Both in the same layout; dense if they differ."""
    if isinstance(a, Carried) and isinstance(b, Carried) and a.layout != b.layout:
        return a.dense(), b.dense()
    return a, b


def _tangents_broadcast(jacobian: Tensor, ndim: int) -> Tensor:
    """Insert dimensions behind the tangents, so that it broadcasts like a value of `ndim` dimensions."""
    missing = ndim + 1 - jacobian.ndim
    return jacobian.reshape(jacobian.shape[0], *(1,) * missing, *jacobian.shape[1:]) if missing > 0 else jacobian


@_register(torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__)
def _add(a: Any, b: Any) -> Carried:
    a, b = _align(a, b)
    value = _value(a) + _value(b)
    jacobian, laplacian, layout = None, None, None
    for term in (a, b):
        if isinstance(term, Carried):
            layout = term.layout
            j = _tangents_broadcast(term.jacobian, value.ndim)
            jacobian = j if jacobian is None else jacobian + j
            laplacian = term.laplacian if laplacian is None else laplacian + term.laplacian
    assert jacobian is not None and laplacian is not None
    return Carried(value, jacobian.expand(-1, *value.shape), laplacian.expand(value.shape), layout)


@_register(torch.sub, Tensor.sub, Tensor.__sub__, Tensor.__rsub__)
def _sub(a: Any, b: Any) -> Carried:
    return _add(a, -b)


@_register(torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__)
def _mul(a: Any, b: Any) -> Carried:
    return _bilinear(torch.mul, a, b)


@_register(torch.div, Tensor.div, Tensor.__truediv__, Tensor.__rtruediv__)
def _div(a: Any, b: Any) -> Carried:
    return _mul(a, _reciprocal(b) if isinstance(b, Carried) else 1.0 / b)


@_register(torch.matmul, Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__)
def _matmul(a: Any, b: Any) -> Carried:
    a, b = (x.dense() if isinstance(x, Carried) else x for x in (a, b))
    return _bilinear(torch.matmul, a, b)


def _bilinear(product: Callable[[Any, Any], Tensor], a: Any, b: Any) -> Carried:
    """lap(a b) = lap(a) b + 2 sum_tangents J_a J_b + a lap(b)."""
    a, b = _align(a, b)
    value = product(_value(a), _value(b))
    if not isinstance(b, Carried):
        jacobian = product(_tangents_broadcast(a.jacobian, value.ndim), b)
        laplacian, layout = product(a.laplacian, b), a.layout
    elif not isinstance(a, Carried):
        jacobian = product(a, _tangents_broadcast(b.jacobian, value.ndim))
        laplacian, layout = product(a, b.laplacian), b.layout
    else:
        jac_a, jac_b = (_tangents_broadcast(x.jacobian, value.ndim) for x in (a, b))
        jacobian = product(jac_a, b.value) + product(a.value, jac_b)
        laplacian = product(a.laplacian, b.value) + product(a.value, b.laplacian) + 2.0 * product(jac_a, jac_b).sum(0)
        layout = a.layout
    return Carried(value, jacobian, laplacian, layout)


# --- determinants ---------------------------------------------------------------------------------------------------


@_register(torch.linalg.slogdet)
def _slogdet(a: Carried) -> tuple[Carried, Carried]:
    """Phase and ln|det| of complex matrices (..., n, n) from ln det: d ln det = tr(A^-1 dA),

    lap ln det A = tr(A^-1 lap A) - sum_tangents tr[(A^-1 dA)^2].
    """
    phase, log_abs = torch.linalg.slogdet(a.value)
    inverse = torch.linalg.inv(a.value)
    product = inverse @ a.jacobian  # (3N, ..., n, n)
    jacobian = product.diagonal(dim1=-2, dim2=-1).sum(-1)
    squares = torch.einsum("d...ij,d...ji->...", product, product)
    laplacian = torch.einsum("...ij,...ji->...", inverse, a.laplacian) - squares
    turn = Carried(1j * torch.angle(phase), 1j * jacobian.imag, 1j * laplacian.imag)
    return RULES[torch.exp](turn), Carried(log_abs, jacobian.real, laplacian.real)
