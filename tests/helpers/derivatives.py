"""Derivatives taken the slow way: plain reverse-mode differentiation, one number after the other."""

from collections.abc import Callable

import torch
from torch import Tensor


def jacobian_and_laplacian(function: Callable[[Tensor], Tensor], positions: Tensor) -> tuple[Tensor, Tensor]:
    """Jacobian (3N, ...) and Laplacian (...) of function(positions) (...), positions (N, 3), by reverse over reverse.

    Neither vmap nor forward mode takes part: second derivatives of determinants were measured to be wrong there.
    """
    real, real_laplacian = _of_real_function(lambda r: _part(function(r), "real"), positions)
    if not function(positions).is_complex():
        return real, real_laplacian
    imag, imag_laplacian = _of_real_function(lambda r: _part(function(r), "imag"), positions)
    return torch.complex(real, imag), torch.complex(real_laplacian, imag_laplacian)


def _part(value: Tensor, name: str) -> Tensor:
    return getattr(value, name) if value.is_complex() else value


def _of_real_function(function: Callable[[Tensor], Tensor], positions: Tensor) -> tuple[Tensor, Tensor]:
    variables = positions.detach().clone().requires_grad_()
    value = function(variables)
    jacobian = value.new_zeros(variables.numel(), value.numel())
    laplacian = value.new_zeros(value.numel())
    for entry, number in enumerate(value.flatten()):
        gradient = _gradient(number, variables)
        jacobian[:, entry] = gradient.detach()
        for tangent, slope in enumerate(gradient):
            laplacian[entry] += _gradient(slope, variables)[tangent].detach()
    return jacobian.reshape(-1, *value.shape), laplacian.reshape(value.shape)


def _gradient(number: Tensor, variables: Tensor) -> Tensor:
    """d number / d variables, flat; zero where the number does not depend on them."""
    if not number.requires_grad:
        return torch.zeros_like(variables).flatten()
    (gradient,) = torch.autograd.grad(number, variables, create_graph=True, allow_unused=True)
    return torch.zeros_like(variables).flatten() if gradient is None else gradient.flatten()


def finite_difference_kinetic(log_psi: Callable[[Tensor], Tensor], electrons: Tensor, step: float = 2e-3) -> Tensor:
    """-1/2 sum_i lap_i psi / psi of electrons (..., N, 3), by six-point differences of psi / psi(r).

    The ratio of psi to its value at the centre has no branch of the logarithm that a difference could cross.
    """
    centre = log_psi(electrons)
    weights = {1: 3.0 / 2.0, 2: -3.0 / 20.0, 3: 1.0 / 90.0}
    laplacian = -2.0 * (3.0 * electrons.shape[-2]) * sum(weights.values()) * torch.ones_like(centre)
    for atom in range(electrons.shape[-2]):
        for axis in range(3):
            shift = torch.zeros_like(electrons)
            shift[..., atom, axis] = step
            for multiple, weight in weights.items():
                for sign in (-1, 1):
                    laplacian = laplacian + weight * torch.exp(log_psi(electrons + sign * multiple * shift) - centre)
    return -0.5 * laplacian / step**2


def central_differences(function: Callable[[Tensor], Tensor], parameters: Tensor, step: float = 1e-4) -> Tensor:
    """d function / d parameters (P,) of a number, by fourth-order differences."""
    gradient = torch.zeros_like(parameters)
    for index in range(len(parameters)):
        for multiple, weight in ((1, 2.0 / 3.0), (2, -1.0 / 12.0)):
            shift = torch.zeros_like(parameters)
            shift[index] = multiple * step
            gradient[index] += weight * (function(parameters + shift) - function(parameters - shift)) / step
    return gradient
