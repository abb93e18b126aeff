"""Kinetic energy of the electrons: derivatives carried forward, and a slow and safe reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lightning_vfe.forward_laplacian import LaplacianTensor


@torch.no_grad()
def kinetic_energy(log_psi: Callable[[Any], Any], electrons: Tensor) -> Tensor:
    r"""Local kinetic energy -1/2 sum_i [lap_i ln psi + (grad_i ln psi)^2], complex, whole cell, Ha.

    One pass with value, Jacobian and Laplacian carried through the layers of the wavefunction; no nested derivatives.

    Args:
        log_psi: electrons (..., N, 3) -> complex ln psi (...), of operations that `forward_laplacian` has rules for.
        electrons: positions in bohr. # (..., N, 3)
    """
    result: LaplacianTensor = log_psi(LaplacianTensor.seed(electrons))
    return -0.5 * (result.laplacian + result.jacobian.square().sum(0))


def kinetic_energy_nested(log_psi: Callable[[Tensor], Tensor], electrons: Tensor) -> Tensor:
    r"""The same by nested automatic differentiation, for any log_psi: the reference of the tests.

    Two measured traps shape this function. Second derivatives of determinants under vmap are not reliable, so one
    coordinate after the other is pushed forward (jvp) through the gradient of all walkers at once. And under
    torch.no_grad a jvp of a vjp returns wrong numbers without a word, so gradients are switched on here.
    """

    def gradients(positions: Tensor) -> tuple[Tensor, Tensor]:
        def parts(r: Tensor) -> tuple[Tensor, Tensor]:
            value = log_psi(r)
            return value.real, value.imag

        (real, imag), pullback = torch.func.vjp(parts, positions)[:2]
        one, zero = torch.ones_like(real), torch.zeros_like(imag)
        return pullback((one, zero))[0], pullback((zero, one))[0]

    electrons = electrons.detach()
    laplacian: Tensor | float = 0.0
    for atom in range(electrons.shape[-2]):
        for axis in range(3):
            direction = torch.zeros_like(electrons)
            direction[..., atom, axis] = 1.0
            with torch.enable_grad():
                gradient, second = torch.func.jvp(gradients, (electrons,), (direction,))[:2]
            laplacian = laplacian + torch.complex(*(part[..., atom, axis].detach() for part in second))
    squared = torch.complex(*(part.detach() for part in gradient)).square().sum((-2, -1))
    return -0.5 * (laplacian + squared)
