"""Flows with parameters as after a training: every part of the map matters."""

import itertools

import torch

from lightning_vfe.models.flow.equivariant_flow import EquivariantFlow
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.system import System


def make_flow(cell, seed=5, strength=1.0, **sizes):
    """A small flow with random parameters, whose reference is another state point; `strength` scales the displacements
    of the message blocks.
    """
    torch.manual_seed(seed)
    sizes = {"num_blocks": 1, "num_steps": 2, "num_layers": 2, "num_channels": 4, "num_radial": 5} | sizes
    flow = EquivariantFlow(System(cell.num_atoms), StatePoint(0.9 * cell.rs, 5000.0), **sizes)
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            if name.endswith("readout"):
                parameter.normal_(std=strength)
            elif name.endswith(("bias", "logits")):
                parameter.normal_(std=0.5)
            elif name.endswith("slopes"):
                parameter.normal_(std=0.01 if "amplitude" in name else 0.3)
            elif name.endswith("amplitude"):
                parameter.fill_(0.03)
    return flow


def random_protons(cell, *shape, seed=2):
    """Uniform positions in bohr. # (*shape, N, 3)"""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, cell.num_atoms, 3, generator=generator) * cell.length


def cubic_operations():
    """The 48 signed permutation matrices. # (48, 3, 3)"""
    matrices = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            matrix = torch.zeros(3, 3)
            matrix[torch.arange(3), torch.tensor(order)] = torch.tensor(signs)
            matrices.append(matrix)
    return torch.stack(matrices)


def report(record_property, error, tolerance):
    """Record and print the largest error of a symmetry, and compare it with the tolerance."""
    error = float(error)
    record_property("largest_error", error)
    print(f"largest error {error:.1e}")
    assert error < tolerance, f"largest error {error:.1e} exceeds {tolerance:.0e}"
