"""The energy in parts equals the energy, and so does its gradient."""

import torch

from lightning_vfe.models.potential import chunked
from lightning_vfe.models.potential.chunked import chunked_energy
from lightning_vfe.models.potential.yukawa import YukawaPotential
from lightning_vfe.physics.cell import PeriodicCell


def test_values_and_gradients_do_not_depend_on_the_parts(monkeypatch) -> None:
    cell, potential = PeriodicCell(4, 1.25), YukawaPotential()
    z = (cell.length * torch.rand(3, 5, 4, 3)).requires_grad_()
    expected = potential.energy(z, cell)
    (gradient,) = torch.autograd.grad((expected * torch.arange(5.0)).sum(), z)
    monkeypatch.setattr(chunked, "max_chunk_elements", lambda positions: 8192)
    energy = chunked_energy(potential, cell)
    found = energy(z)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad((found * torch.arange(5.0)).sum(), z)[0], gradient)
    with torch.no_grad():
        torch.testing.assert_close(energy(z), expected)
