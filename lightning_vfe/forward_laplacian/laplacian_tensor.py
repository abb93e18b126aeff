"""A tensor that carries its first derivatives and its Laplacian with respect to the electrons' coordinates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

Rule = Callable[..., Any]
"""What replaces a function of PyTorch when an argument is a LaplacianTensor; it takes the same arguments."""

RuleType = TypeVar("RuleType", bound=Callable[..., Any])

RULES: dict[Callable[..., Any], Rule] = {}
"""The rule of each function of PyTorch, and of each method of a tensor, that has one."""


@dataclass(frozen=True)
class PairSparsity:
    """Derivatives of pair quantities with respect to the pair's own relative vector only (3 tangents instead of 3N).

    A pair (i, j) depends on r_i - y_j alone. Its tangents move to the columns of particle i, and with `both_move` (y
    are the electrons too) with the opposite sign to those of j, when the pair meets anything else.
    """

    both_move: bool
    num_dims: int
    """Dimensions of the value up to and including the pair indices (..., M, N); features may follow."""

    def with_leading(self, num_dims: int) -> PairSparsity:
        """The layout after `num_dims` new dimensions in front, as broadcasting adds them."""
        return replace(self, num_dims=self.num_dims + num_dims) if num_dims else self


class LaplacianTensor:
    r"""f(r) with its Jacobian and Laplacian, r the coordinates of the N moving particles.

    value (...), jacobian (3N, ...) with particle-major tangents, laplacian (...) = sum_i d^2 f / dr_i^2. In a
    `PairSparsity` the jacobian is (3, ...) and the laplacian that of the relative vector.

    Chain rule per layer y = g(f):  J_y = g' J_f,  lap y = g' lap f + sum_tangents J^T g'' J  (forward Laplacian,
    Li et al., Nat. Mach. Intell. 6, 209 (2024)). Functions are dispatched through __torch_function__; dimensions are
    given from the end, so that one call serves all three parts. No graph is recorded: run it under torch.no_grad.
    """

    def __init__(self, value: Tensor, jacobian: Tensor, laplacian: Tensor, layout: PairSparsity | None = None) -> None:
        self.value = value
        self.jacobian = jacobian
        self.laplacian = laplacian
        self.layout = layout

    @staticmethod
    def seed(positions: Tensor) -> LaplacianTensor:
        """The positions (..., N, 3) themselves, as the variables to differentiate by."""
        num_coordinates = positions.shape[-2] * 3
        seeds = torch.eye(num_coordinates, dtype=positions.dtype, device=positions.device)
        seeds = seeds.reshape(num_coordinates, *(1,) * (positions.ndim - 2), *positions.shape[-2:])
        return _Seed(positions, seeds.expand(num_coordinates, *positions.shape), torch.zeros_like(positions))

    def dense(self) -> LaplacianTensor:
        """The same with the tangents of all 3N coordinates."""
        if self.layout is None:
            return self
        index_i, index_j = self.layout.num_dims - 2, self.layout.num_dims - 1
        num_i = self.value.shape[index_i]
        jacobian = self.jacobian.new_zeros(num_i, *self.jacobian.shape)  # (M, 3, ..., M, N, ...)
        # Views of the entries whose tangent belongs to particle i (or j); +2 skips the two tangent dimensions.
        jacobian.diagonal(dim1=0, dim2=index_i + 2).copy_(self.jacobian.movedim(index_i + 1, -1))
        laplacian = self.laplacian
        if self.layout.both_move:
            other = jacobian.diagonal(dim1=0, dim2=index_j + 2)
            other.sub_(self.jacobian.movedim(index_j + 1, -1))
            laplacian = 2.0 * laplacian
        return LaplacianTensor(self.value, jacobian.flatten(0, 1), laplacian)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        del types  # PyTorch demands it
        rule = RULES.get(func)
        if rule is None:
            name = torch.overrides.resolve_name(func) or repr(func)
            raise NotImplementedError(
                f"no forward-Laplacian rule for {name}; docs/forward_laplacian.md shows how to add one"
            )
        return rule(*args, **(kwargs or {}))

    @property
    def shape(self) -> torch.Size:
        """That of the value."""
        return self.value.shape

    @property
    def dtype(self) -> torch.dtype:
        """That of the value, the Jacobian and the Laplacian."""
        return self.value.dtype

    @property
    def device(self) -> torch.device:
        """That of the value, the Jacobian and the Laplacian."""
        return self.value.device

    def detach(self) -> Tensor:
        """The plain value: a constant to whatever follows."""
        return self.value

    def __gt__(self, other: Tensor | float) -> Tensor:
        return torch.gt(self.value, other)

    def __getattr__(self, name: str) -> Any:
        """Tensor methods (x.sum(-1), x.unsqueeze(-2), ...) are the functions of the same name."""
        function = getattr(torch.Tensor, name, None)
        if function is None or name.startswith("__") or function not in RULES:
            raise AttributeError(
                f"no forward-Laplacian rule for the tensor method {name!r}; "
                "docs/forward_laplacian.md shows how to add one"
            )
        return lambda *args, **kwargs: RULES[function](self, *args, **kwargs)

    def __getitem__(self, index: Any) -> LaplacianTensor:
        return _apply(Tensor.__getitem__, self, index)

    def __neg__(self) -> LaplacianTensor:
        return _apply(torch.mul, self, -1.0)

    def __add__(self, other: Operand) -> LaplacianTensor:
        return _apply(torch.add, self, other)

    __radd__ = __add__

    def __sub__(self, other: Operand) -> LaplacianTensor:
        return _apply(torch.sub, self, other)

    def __rsub__(self, other: Operand) -> LaplacianTensor:
        return _apply(torch.sub, other, self)

    def __mul__(self, other: Operand) -> LaplacianTensor:
        return _apply(torch.mul, self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Operand) -> LaplacianTensor:
        return _apply(torch.div, self, other)

    def __rtruediv__(self, other: Operand) -> LaplacianTensor:
        return _apply(torch.div, other, self)

    def __matmul__(self, other: TensorLike) -> LaplacianTensor:
        return _apply(torch.matmul, self, other)


TensorLike: TypeAlias = Tensor | LaplacianTensor
"""What a model works on: plain tensors, or those that carry their derivatives."""

Operand: TypeAlias = TensorLike | complex
"""The other side of an operator."""


def _apply(function: Callable[..., Any], *args: Any) -> LaplacianTensor:
    result: LaplacianTensor = RULES[function](*args)
    return result


def register(*functions: Callable[..., Any]) -> Callable[[RuleType], RuleType]:
    """Decorator of a rule: it replaces these functions whenever one of their arguments is carried.

    The rule takes the arguments of the functions, and returns a LaplacianTensor, or a tuple of them.
    """

    def add(rule: RuleType) -> RuleType:
        for function in functions:
            RULES[function] = rule
        return rule

    return add


def register_named(*names: str) -> Callable[[RuleType], RuleType]:
    """Register for torch.NAME and for the method NAME of a tensor, as far as there are both."""
    functions = [getattr(space, name) for name in names for space in (torch, Tensor) if hasattr(space, name)]
    return register(*functions)


def value_of(x: Any) -> Any:
    """The value of what is carried; anything else as it is."""
    return x.value if isinstance(x, LaplacianTensor) else x


def tangents_broadcast(jacobian: Tensor, ndim: int) -> Tensor:
    """Insert dimensions behind the tangents, so that it broadcasts like a value of `ndim` dimensions."""
    missing = ndim + 1 - jacobian.ndim
    return jacobian.reshape(jacobian.shape[0], *(1,) * missing, *jacobian.shape[1:]) if missing > 0 else jacobian


class _Seed(LaplacianTensor):
    """The variables themselves, not functions of them."""


def relative_vectors(first: TensorLike, second: TensorLike) -> Any:
    """r_i - y_j for all pairs (..., M, N, 3) of plain or carried positions (..., M, 3) and (..., N, 3), in bohr.

    Where `first` are the coordinates that all is differentiated by, and `second` the same object or plain, the result
    keeps the pair's own three tangents until it meets other quantities; a particle's pair with itself is constant.
    Plain vectors lie component by component in memory, and so does what is computed of them number by number: see
    join_features.
    """
    both_move = second is first
    if not isinstance(first, LaplacianTensor) and not isinstance(second, LaplacianTensor):
        leading = max(first.ndim, second.ndim) - 2
        first, second = (x.reshape(*(1,) * (leading + 2 - x.ndim), *x.shape).movedim(-1, 0) for x in (first, second))
        return (first.unsqueeze(-1) - second.unsqueeze(-2)).movedim(0, -1)
    if not isinstance(first, _Seed) or (isinstance(second, LaplacianTensor) and not both_move):
        return first.unsqueeze(-2) - second.unsqueeze(-3)
    other = value_of(second)
    displacement = first.value.unsqueeze(-2) - other.unsqueeze(-3)
    num_first, num_second = displacement.shape[-3:-1]
    seeds = torch.eye(3, dtype=displacement.dtype, device=displacement.device)
    seeds = seeds.reshape(3, *(1,) * (displacement.ndim - 1), 3).expand(3, *displacement.shape)
    if both_move:
        seeds = seeds * (1.0 - torch.eye(num_first, num_second, dtype=seeds.dtype, device=seeds.device)).unsqueeze(-1)
    layout = PairSparsity(both_move, displacement.ndim - 1)
    return LaplacianTensor(displacement, seeds, torch.zeros_like(displacement), layout)
