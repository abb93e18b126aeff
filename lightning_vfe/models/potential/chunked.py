"""The energy of a potential as a function of the positions that never needs much memory, not even for its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_vfe.models.potential.potential import ELEMENTS_PER_ATOM, Potential
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.chunking import map_chunks, max_chunk_elements


def chunked_energy(potential: Potential, cell: PeriodicCell) -> Callable[[Tensor], Tensor]:
    """E(z) in Ha, (..., N, 3) -> (...), with first derivatives by autograd, for chains on many configurations.

    Where a gradient will be needed the forces are found at once, a part of the configurations at a time: the graph of a
    network for all of them would take gigabytes.
    """

    def energy(z: Tensor) -> Tensor:
        if z.requires_grad and torch.is_grad_enabled():
            with_forces: Tensor = _EnergyWithForces.apply(z, potential, cell)  # type: ignore[no-untyped-call]  # of torch
            return with_forces
        limit = max(1, max_chunk_elements(z) // (ELEMENTS_PER_ATOM * cell.num_atoms))
        return map_chunks(lambda part: (potential.energy(part, cell),), limit, z)[0]

    return energy


class _EnergyWithForces(torch.autograd.Function):
    """E(z) with the gradient -forces."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, potential: Potential, cell: PeriodicCell) -> Tensor:
        energy, forces = potential.energy_and_forces(z, cell)
        ctx.save_for_backward(forces)
        return energy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (forces,) = ctx.saved_tensors
        return -forces * gradients[0][..., None, None], None, None
