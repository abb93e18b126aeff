"""Hermitian matrices of many kinds, and what an operation dispatches."""

import math
from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_vfe.models.wavefunction.orbitals import PlaneWaveEnvelope
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.system import System
from tests.helpers.states import states_at
from tests.helpers.wavefunctions import random_configurations

SHELLS = (1, 6, 12, 8)
"""Plane waves of the first shells."""
WAITING = ("_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "unique", "masked_select", "bincount")
"""Operations that make the host wait for a device."""


def hermitian(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    real, imag = (torch.randn(*shape, generator=generator) for _ in range(2))
    matrix = torch.complex(real, imag)
    return 0.5 * (matrix + matrix.mH)


def with_levels(levels: Tensor, seed: int = 0) -> Tensor:
    """Matrices (..., k, k) with levels (..., k) and random eigenvectors."""
    vectors = torch.linalg.qr(hermitian(*levels.shape, levels.shape[-1], seed=seed))[0]
    return (vectors * levels.unsqueeze(-2)) @ vectors.mH


def shells(spread: float, count: int = 4, seed: int = 0) -> Tensor:
    """Levels (count, 27) in Ha of four shells, each split by about `spread`."""
    levels = torch.repeat_interleave(0.75 * torch.arange(4), torch.tensor(SHELLS))
    noise = torch.randn(count, len(levels), generator=torch.Generator().manual_seed(seed))
    return levels + spread * noise


def physical(num_atoms: int, twist: tuple[float, float, float], count: int = 4, seed: int = 0) -> Tensor:
    """One-body Hamiltonians (count, 2, k, k) in Ha of the envelope, for random protons."""
    cell = PeriodicCell(num_atoms, 1.25)
    envelope = PlaneWaveEnvelope(System(num_atoms), 0.9 * cell.rs, 2)
    protons = random_configurations(cell, count, 1, seed=seed)[0].squeeze(1)  # (count, N, 3)
    phase = -2.0 * math.pi / cell.length * (protons @ envelope.integers.T)
    wave = torch.complex(phase.cos(), phase.sin()).mT.unsqueeze(-3)
    with torch.no_grad():
        kappa_squared = envelope.log_strengths(torch.tensor(1.0 / 0.9))[1].exp()
        return envelope._hamiltonian(wave, states_at(cell, twist=twist), kappa_squared)


class Dispatched(TorchDispatchMode):
    """Counts by name the operations that run inside; views cost nothing and do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.names[func._schema.name.removeprefix("aten::")] += 1
        return func(*args, **(kwargs or {}))
