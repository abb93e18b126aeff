"""Features of the atoms together with their Jacobian with respect to all coordinates, carried through a network.

Shape letters: W walkers, A components of one channel (l = 0, 1, ..., and m inside each l), C channels, N atoms,
X = 3 N coordinates (atom by atom).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Jet(NamedTuple):
    """A value and, where it is wanted and not zero, its Jacobian.

    Every operation is written once here and acts on both, so that a network built from these operations is the same
    code with and without derivatives. No Jacobian stands for zero, or for "not carried".
    """

    value: Tensor  # (W, A, C, N)
    jacobian: Tensor | None = None  # (W, A, C, N, X)

    def mixed(self, weight: Tensor, bias: Tensor | None = None) -> Jet:
        """Channel mixing, component by component.

        Args:
            weight: one matrix per component, or one for all of them.  # (A or 1, C', C) or (W, A or 1, C', C)
            bias: added to every atom.  # (A or 1, C', 1) or (W, A or 1, C', 1)

        Returns:
            weight @ features + bias.  # (W, A, C', N)
        """
        value = weight @ self.value
        if bias is not None:
            value = value + bias
        if self.jacobian is None:
            return Jet(value)
        jacobian = weight @ self.jacobian.flatten(-2)
        return Jet(value, jacobian.unflatten(-1, self.jacobian.shape[-2:]))

    def times(self, other: Jet) -> Jet:
        """Elementwise product (with broadcasting) and the product rule."""
        jacobian = None
        if self.jacobian is not None and other.jacobian is not None:
            jacobian = self.value.unsqueeze(-1) * other.jacobian
            jacobian = torch.addcmul(jacobian, other.value.unsqueeze(-1), self.jacobian)
        return Jet(self.value * other.value, jacobian)

    def plus(self, other: Jet) -> Jet:
        """Sum; either Jacobian may be absent, which stands for zero."""
        jacobians = [carried.jacobian for carried in (self, other) if carried.jacobian is not None]
        return Jet(self.value + other.value, sum(jacobians[1:], jacobians[0]) if jacobians else None)

    def components(self, index: slice) -> Jet:
        """The chosen components (axis 1)."""
        return Jet(self.value[:, index], None if self.jacobian is None else self.jacobian[:, index])

    def silu(self) -> Jet:
        """x sigmoid(x) and its derivative sigmoid(x) (1 + x (1 - sigmoid(x)))."""
        sigmoid = torch.sigmoid(self.value)
        return self.pointwise(self.value * sigmoid, sigmoid * (1.0 + self.value * (1.0 - sigmoid)))

    def open_gate(self) -> Jet:
        """2 sigmoid(x), which is 1 at x = 0, and its derivative 2 sigmoid(x) (1 - sigmoid(x))."""
        sigmoid = torch.sigmoid(self.value)
        return self.pointwise(2.0 * sigmoid, 2.0 * sigmoid * (1.0 - sigmoid))

    def pointwise(self, value: Tensor, derivative: Tensor) -> Jet:
        """A function of every single feature, given as its values and derivatives."""
        return Jet(value, None if self.jacobian is None else derivative.unsqueeze(-1) * self.jacobian)

    def per_atom(self) -> Jet:
        """One channel of vectors as rows of atoms: (W, 3, 1, N) -> (W, N, 3), Jacobian (W, N, 3, X)."""
        jacobian = None if self.jacobian is None else self.jacobian.squeeze(2).transpose(1, 2)
        return Jet(self.value.squeeze(2).transpose(1, 2), jacobian)


def concatenated(parts: list[Jet]) -> Jet:
    """Join sets of components (axis 1); all of them carry a Jacobian, or none does."""
    value = torch.cat([part.value for part in parts], dim=1)
    jacobians = [part.jacobian for part in parts if part.jacobian is not None]
    return Jet(value, torch.cat(jacobians, dim=1) if jacobians else None)
