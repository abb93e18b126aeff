"""The numbers of an accelerator beside those of the CPU, of plain moves, and of plain code."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from gpu_report import Report
from gpu_state import make_state, move_networks
from graph_check import compare_graphs
from torch import Tensor

from lightning_vfe.models.wavefunction.conditional import electron_density
from lightning_vfe.models.wavefunction.density import ElectronDensity
from lightning_vfe.models.wavefunction.density.fused.choice import SWITCH, failures
from lightning_vfe.models.wavefunction.fermi import fermi_function
from lightning_vfe.state.variational_state import VariationalState
from lightning_vfe.training.variational.module import VariationalFreeEnergy


def check_numbers(report: Report, device: str) -> bool:
    """Compare energies, ln p, scores, inverse, Fermi function and one natural-gradient step with the CPU's."""
    found: dict[str, dict[str, Tensor]] = {}
    for place in ("cpu", device):
        state = make_state(8, 4, 4)
        state.place("cpu")
        move_networks(state, place)
        assert state.walkers is not None
        assert state.proton_density is not None
        state.walkers.fields = {name: value.to(place) for name, value in state.walkers.fields.items()}
        batch = state.current()
        sample, scores = state.energies(batch), state.scores(batch, 8)
        assert sample.protons is not None
        inverse = state.proton_density.flow.from_base(sample.protons.z, batch.states)
        found[place] = {
            "local energy": torch.view_as_real(sample.electronic.total),
            "ln p": sample.protons.log_prob,
            "scores of psi": scores["wavefunction"],
            "scores of p": scores["flow"],
            "inverse of the flow": inverse.x,
            "Fermi function": torch.view_as_real(_fermi(place)),
            "natural-gradient step": _step(state, batch, sample),
        }
    good = True
    for name, expected in found["cpu"].items():
        error = float((found[device][name].cpu() - expected).abs().max() / expected.abs().max().clamp(min=1.0))
        tolerance = 1e-6 if name in ("inverse of the flow", "natural-gradient step") else 1e-9
        good &= error < tolerance
        report.content["errors"][name] = error
        report.say(f"{name:<24} largest error {error:8.1e}  {'ok' if error < tolerance else 'DIFFERS'}")
    return good


def check_graphs(report: Report, device: str) -> bool:
    """Compare electron moves that are recorded as CUDA graphs with plain ones."""
    state = make_state(16, 16, 8, chain_precision="float32")
    move_networks(state, device)
    state.place(device)
    report.content["graphs"] = compare_graphs(state, device, report.say)
    return all(found["differing"] <= 0.01 for found in report.content["graphs"].values())


def _fermi(device: str) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    real, imag = (torch.randn(32, 1, 64, 64, generator=generator, dtype=torch.float64) for _ in range(2))
    matrix = torch.complex(real + real.mT, imag - imag.mT).to(device)
    return fermi_function(matrix, torch.tensor([3.0], dtype=torch.float64, device=device), 16)


def _step(state: VariationalState, batch: Any, sample: Any) -> Tensor:
    """The parameters of both networks after one step."""
    module = VariationalFreeEnergy(state)
    settings = module.configure_optimizers()
    settings["optimizer"].step(closure=lambda: module.score_blocks(batch, sample))
    return torch.cat([parameter.detach().flatten().cpu() for parameter in module.parameters()])


@contextmanager
def plain_code() -> Iterator[None]:
    """ln|psi|^2 without the fused kernels."""
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = "0"
    try:
        yield
    finally:
        del os.environ[SWITCH]
        if before is not None:
            os.environ[SWITCH] = before


def density_of(state: VariationalState, dtype: torch.dtype) -> tuple[ElectronDensity, Tensor]:
    """ln|psi|^2 of the walkers as the moves take it, and their electrons."""
    walkers = state.place()
    protons = walkers.protons * walkers.states.rs[:, None, None]
    density = electron_density(state.wavefunction, protons, walkers.states, dtype)
    assert density is not None
    return density.for_walkers(walkers.electrons.shape[1]), walkers.electrons


def value_and_gradient(density: ElectronDensity, electrons: Tensor) -> tuple[Tensor, Tensor]:
    """ln|psi|^2 and its derivative by the electrons."""
    variable = electrons.clone().requires_grad_()
    value = density(variable)
    return value.detach(), torch.autograd.grad(value.sum(), variable)[0]


def check_kernels(report: Report, device: str) -> bool:
    """Compare ln|psi|^2 and its gradient by the fused kernels with the plain code on the same device."""
    good = True
    for num_atoms, molecular in ((2, False), (14, False), (14, True), (16, False)):
        state = make_state(num_atoms, 24, 8, molecular=molecular)
        move_networks(state, device)
        state.place(device)
        for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-2)):
            density, electrons = density_of(state, dtype)
            fused = value_and_gradient(density, electrons)
            with plain_code():
                plain = value_and_gradient(density, electrons)
            for name, a, b in zip(("value", "gradient"), fused, plain, strict=True):
                error = float((a - b).abs().max() / b.abs().max().clamp(min=1.0))
                name = f"fused {name}, N = {num_atoms}, {str(dtype).removeprefix('torch.')}"
                name += ", molecular" if molecular else ""
                good &= error < tolerance
                report.content["errors"][name] = error
                report.say(f"{name:<44} largest error {error:8.1e}  {'ok' if error < tolerance else 'DIFFERS'}")
    for reason in failures:
        report.say(f"the fused kernels are NOT USED: {reason}")
    return good and not failures
