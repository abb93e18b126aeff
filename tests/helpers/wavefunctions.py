"""Wavefunctions and configurations that several test files share."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lightning_vfe.models.wavefunction.paired import PairedWavefunction
from lightning_vfe.models.wavefunction.wavefunction import GeminalWavefunction
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.state_point import StatePoint, WalkerStates
from lightning_vfe.physics.system import System
from lightning_vfe.state.targets import electron_target

GAMMA = (0.0, 0.0, 0.0)
GENERAL_TWIST = (0.25, 0.1, -0.3)


def trained_like(module: nn.Module, seed: int = 0, size: float = 0.15) -> nn.Module:
    """Move every parameter away from its start by about `size`, so that no part of the module is close to zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return module


W = TypeVar("W", bound=PairedWavefunction)


def make_wavefunction(
    cell: PeriodicCell,
    seed: int = 0,
    kind: type[W] = GeminalWavefunction,  # type: ignore[assignment]
    **sizes: Any,
) -> W:
    """A small wavefunction with trained-like parameters, whose reference is another density than that of the cell."""
    sizes = {"num_layers": 2, "single_width": 8, "pair_width": 6} | sizes
    wavefunction = kind(System(cell.num_atoms), StatePoint(0.9 * cell.rs), **sizes)
    trained_like(wavefunction, seed)
    return wavefunction


def random_configurations(cell: PeriodicCell, *leading: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Uniform protons (W, 1, N, 3) and electrons (W, B, N, 3) in bohr, for leading = (W, B)."""
    generator = torch.Generator().manual_seed(seed)
    shape = (cell.num_atoms, 3)
    protons = torch.rand(leading[0], 1, *shape, generator=generator, dtype=torch.float64) * cell.length
    electrons = torch.rand(*leading, *shape, generator=generator, dtype=torch.float64) * cell.length
    return protons, electrons


def conditional_log_prob(
    wavefunction: nn.Module, protons: Tensor, states: WalkerStates, twin: nn.Module | None = None
) -> Callable[[Tensor], Tensor]:
    """ln |psi_x(r)|^2 as the moves of the electrons evaluate it, with everything in bohr: electrons (W, B, N, 3)."""
    rs = states.rs[:, None, None]
    held: Any = None
    if twin is not None:
        held = SimpleNamespace(dtype=next(twin.parameters()).dtype, module=lambda: twin)

    def log_prob(electrons: Tensor) -> Tensor:
        walkers: Any = SimpleNamespace(states=states, protons=protons / rs, electrons=electrons)
        return electron_target(wavefunction, held)(walkers)(electrons / rs.unsqueeze(1))

    return log_prob
