"""A program of torch.export as a potential: the energies of the network, exact derivatives, files."""

import pytest
import torch

import lightning_vfe as lv
from lightning_vfe.models.potential import storage
from lightning_vfe.physics.cell import PeriodicCell
from tests.helpers.potentials import random_protons

METADATA = {"rs_range": [1.0, 2.0], "temperature_kelvin": 6000.0, "label": {"calculator": "by hand"}}


class Repulsion(torch.nn.Module):
    """sum over pairs of A exp(-d^2), d the smooth distance L/pi sin(pi r/L)."""

    def __init__(self):
        super().__init__()
        self.strength = torch.nn.Parameter(torch.tensor(0.7))

    def forward(self, z, length):
        edge = length[:, None, None, None]
        offset = edge / torch.pi * torch.sin(torch.pi / edge * (z.unsqueeze(-2) - z.unsqueeze(-3)))
        squared = offset.square().sum(-1)
        return self.strength * (torch.exp(-squared).sum((-1, -2)) - z.shape[1]) / 2.0


@pytest.fixture
def file(tmp_path):
    cell, walkers = PeriodicCell(3, 1.5), torch.export.Dim("walkers", min=1)
    example = random_protons(cell, 2), torch.full((2,), cell.length)
    program = torch.export.export(Repulsion(), example, dynamic_shapes=({0: walkers}, {0: walkers}))
    torch.export.save(program, tmp_path / "model.pt2")
    return tmp_path / "model.pt2"


@pytest.mark.parametrize("batch", [(), (1,), (5,), (2, 3)])
def test_energies_are_those_of_the_network(file, batch):
    cell = PeriodicCell(3, 1.5)
    z = cell.length * torch.rand(*batch, 3, 3)
    potential = lv.ExportedPotential.from_file(file)
    expected = Repulsion()(z.reshape(-1, 3, 3), torch.full((z[..., 0, 0].numel(),), cell.length)).reshape(batch)
    assert torch.allclose(potential.energy(z, cell), expected, rtol=0.0, atol=1e-14)
    assert not list(potential.parameters())


def test_forces_and_pressure_are_derivatives(file):
    """By central differences, to 1e-8."""
    cell, potential = PeriodicCell(3, 1.5), lv.ExportedPotential.from_file(file)
    z, step = random_protons(cell, 1), 1e-4
    moved = torch.zeros_like(z)
    moved[0, 1, 2] = step
    slope = (potential.energy(z + moved, cell) - potential.energy(z - moved, cell)) / (2 * step)
    assert abs(potential.forces(z, cell)[0, 1, 2] + slope) < 1e-8
    larger, smaller = (PeriodicCell(3, 1.5 * (1 + sign * step)) for sign in (1, -1))
    work = potential.energy(z * (1 + step), larger) - potential.energy(z * (1 - step), smaller)
    assert abs(potential.pressure(z, cell) + work / (larger.volume - smaller.volume)) < 1e-8


def test_it_is_stored_and_read_once_it_is_trusted(file, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "KINDS", dict(storage.KINDS))
    potential = lv.ExportedPotential.from_file(file)
    with pytest.raises(ValueError, match="cannot be stored"):
        lv.save_potential(potential, tmp_path / "potential.pt", METADATA)
    lv.register_potential("exported", lv.ExportedPotential)
    lv.save_potential(potential, tmp_path / "potential.pt", METADATA)
    loaded, _ = lv.load_potential(tmp_path / "potential.pt")
    cell = PeriodicCell(3, 1.5)
    z = random_protons(cell, 4)
    assert torch.equal(loaded.energy(z, cell), potential.energy(z, cell))
    assert storage.potential_hash(loaded) == storage.potential_hash(potential)
    del storage.KINDS["exported"]
    with pytest.raises(lv.SettingError, match="call register_potential first"):
        lv.load_potential(tmp_path / "potential.pt")


def test_what_is_no_program_is_refused(tmp_path):
    with pytest.raises(lv.SettingError, match=r"path = .*none.pt2: no such file"):
        lv.ExportedPotential.from_file(tmp_path / "none.pt2")
    (tmp_path / "text.pt2").write_text("not a program")
    with pytest.raises(lv.SettingError, match=r"path = .*text.pt2 is no program of torch.export"):
        lv.ExportedPotential.from_file(tmp_path / "text.pt2")
