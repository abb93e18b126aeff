"""The Fermi function of many Hermitian matrices: LAPACK or cuSOLVER (torch.linalg.eigh) against batched products.

    python benchmarks/bench_fermi.py
    python benchmarks/bench_fermi.py --device cuda
    python benchmarks/bench_fermi.py --device cuda --dtype float32 --order 27

One line for each batch and method: seconds of the eigenvectors alone, of the Fermi function, of the function with its
gradient (CPU seconds on a CPU), the operations that the function dispatches without and with its gradient (views not
counted), and the largest errors of value and gradient against LAPACK in double precision, for the first matrices of
the batch. The matrices are those of a plane-wave envelope: kinetic energies and a random potential, spread over 5 Ha.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from measure import Work, add_device, seconds_of
from torch import Tensor

from lightning_vfe.models.wavefunction.fermi import fermi_function
from lightning_vfe.models.wavefunction.hermitian import eigenvectors

BETA = 100.0
"""1/Ha."""
CHECKED = 16
"""Matrices that are compared with LAPACK."""


def matrices(batch: int, order: int) -> Tensor:
    """h (batch, 1, k, k) in Ha, complex128."""
    generator = torch.Generator().manual_seed(0)
    real, imag = torch.randn(2, batch, 1, order, order, generator=generator, dtype=torch.float64)
    potential = torch.complex(real, imag)
    kinetic = torch.linspace(0.0, 5.0, order, dtype=torch.float64).diag()
    return kinetic + 0.1 * (potential + potential.mH) / order**0.5


def value_and_gradient(hamiltonian: Tensor, batched: bool) -> tuple[Tensor, Tensor]:
    """The Fermi function and the gradient of the sum of its real parts, with a third of the levels filled."""
    leaf = hamiltonian.detach().requires_grad_()
    value = filled(leaf, batched)
    value.real.sum().backward()
    assert leaf.grad is not None
    return value.detach(), leaf.grad


def filled(hamiltonian: Tensor, batched: bool) -> Tensor:
    beta = torch.full((1,), BETA, dtype=hamiltonian.real.dtype, device=hamiltonian.device)
    return fermi_function(hamiltonian, beta, hamiltonian.shape[-1] // 3, batched=batched)


def operations_of(function: Callable[[], Any]) -> int:
    with Work() as work:
        function()
    return work.operations


def line(batch: int, arguments: argparse.Namespace, batched: bool) -> str:
    device = torch.device(arguments.device)
    exact = matrices(batch, arguments.order)
    hamiltonian = exact.to(device, torch.complex64 if arguments.dtype == "float32" else torch.complex128)
    basis = eigenvectors if batched else torch.linalg.eigh
    value = torch.no_grad()(partial(filled, hamiltonian, batched))
    both = partial(value_and_gradient, hamiltonian, batched)
    work: list[Callable[[], Any]] = [partial(basis, hamiltonian), value, both]
    for function in work:
        function()
    seconds = [seconds_of(function, device, arguments.budget) for function in work]
    operations = [operations_of(function) for function in work[1:]]
    found = [each[:CHECKED].cpu() for each in both()]
    expected = value_and_gradient(exact[:CHECKED], False)
    errors = [(a - b).abs().max().item() / max(1.0, b.abs().max().item()) for a, b in zip(found, expected, strict=True)]
    numbers = [f"{each:10.4f}" for each in seconds] + [f"{each:8d}" for each in operations]
    return " ".join([f"{batch:6d} {'products' if batched else 'eigh':>9s}", *numbers, *(f"{e:9.1e}" for e in errors)])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 1024])
    parser.add_argument("--order", type=int, default=64, help="rows of a matrix")
    add_device(parser)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    torch.set_num_threads(1)
    names = ["  batch    method", *(f"{name:>10s}" for name in ("basis s", "value s", "gradient s"))]
    print(" ".join([*names, " ops", "+gradient", "  error", "of gradient"]))
    for batch in arguments.batches:
        for batched in (False, True):
            print(line(batch, arguments, batched), flush=True)


if __name__ == "__main__":
    main()
