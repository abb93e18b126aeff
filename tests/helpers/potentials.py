"""Potentials with parameters like trained ones, for tests."""

import torch

from lightning_vfe.models.potential.schnet import SchNetPotential
from lightning_vfe.physics.cell import PeriodicCell


def make_schnet(seed: int = 0, mean_force: float | None = None, **settings) -> SchNetPotential:
    """A small SchNet potential whose biases are not zero either.

    With mean_force the network alone is scaled to that root mean square of a force component, in Ha/bohr, at rs = 1.25.
    """
    settings = {"cutoff": 4.0, "num_features": 12, "num_interactions": 2, "num_radial": 10} | settings
    settings = {"energy_per_atom": -0.5, "energy_scale": 0.1} | settings
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        potential = SchNetPotential(**settings)
        with torch.no_grad():
            for parameter in potential.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    if mean_force is not None:
        cell = PeriodicCell(8, 1.25)
        z = random_protons(cell, 8)
        forces = potential.forces(z, cell) - potential.repulsion.forces(z, cell)
        potential.set_scale(-0.5, float(potential.energy_scale * mean_force / forces.square().mean().sqrt()))
    return potential


def random_protons(cell, walkers: int, seed: int = 1) -> torch.Tensor:
    """Protons (W, N, 3) on a disturbed grid, so that none are closer than any at this density would be."""
    generator = torch.Generator().manual_seed(seed)
    edge = 1
    while edge**3 < cell.num_atoms:
        edge += 1
    axis = torch.arange(edge) / edge
    grid = torch.cartesian_prod(axis, axis, axis)[: cell.num_atoms]
    noise = 0.3 / edge * torch.rand(walkers, cell.num_atoms, 3, generator=generator)
    return (grid + noise) * cell.length


def replicate(z: torch.Tensor, length: float) -> torch.Tensor:
    """The same crystal in a cell of 2 L with eight times the atoms.  # (W, N, 3) -> (W, 8 N, 3)"""
    shifts = length * torch.cartesian_prod(*[torch.arange(2.0)] * 3)
    return (z.unsqueeze(-3) + shifts.unsqueeze(-2)).flatten(-3, -2)
