"""An exported potential gives its energies in a process that has torch alone."""

import subprocess
import sys

import pytest
import torch

import lightning_vfe as lv
from lightning_vfe.physics.cell import PeriodicCell
from tests.helpers.potentials import make_schnet, random_protons

METADATA = {"rs_range": [1.2, 1.4], "temperature_kelvin": 6000.0, "label": {"calculator": "by hand"}}
CODE = """
import sys, torch
z, length = torch.load(sys.argv[2])
model = torch.export.load(sys.argv[1]).module()
z.requires_grad_()
energy = model(z, length)
(slope,) = torch.autograd.grad(energy.sum(), z)
torch.save([energy.detach(), -slope], sys.argv[3])
assert not [name for name in sys.modules if "lightning" in name or "schnetpack" in name]
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    torch.set_default_dtype(torch.float64)
    folder = tmp_path_factory.mktemp("export")
    potential = lv.DeltaPotential(lv.YukawaPotential(1.0, 0.7, 4.5), make_schnet())
    lv.save_potential(potential, folder / "potential.pt", METADATA)
    return lv.export_potential(folder / "potential.pt", folder / "potential.pt2", num_atoms=4)


def test_a_process_with_torch_alone_gives_energies_and_forces(exported, tmp_path) -> None:
    """To 1e-6 Ha, at two densities of the range and for protons in any image."""
    potential = lv.load_potential(exported.with_suffix(".pt"))[0]
    cells = [PeriodicCell(4, rs) for rs in (1.2, 1.4)]
    z = torch.cat([random_protons(cell, 3) + cell.length for cell in cells])
    length = torch.tensor([cell.length for cell in cells]).repeat_interleave(3)
    torch.save([z, length], tmp_path / "given.pt")
    words = [sys.executable, "-I", "-c", CODE, str(exported), str(tmp_path / "given.pt"), str(tmp_path / "found.pt")]
    subprocess.run(words, check=True, capture_output=True)
    energy, forces = torch.load(tmp_path / "found.pt")
    for number, cell in enumerate(cells):
        own = slice(3 * number, 3 * number + 3)
        expected = potential.energy_and_forces(z[own], cell)
        assert (energy[own] - expected[0]).abs().max() < 1e-6
        assert (forces[own] - expected[1]).abs().max() < 1e-6


def test_one_configuration_and_the_way_back(exported) -> None:
    cell = PeriodicCell(4, 1.3)
    potential, back = lv.load_potential(exported.with_suffix(".pt"))[0], lv.ExportedPotential.from_file(exported)
    z = random_protons(cell, 1)
    assert float(back.energy(z, cell)) == pytest.approx(float(potential.energy(z, cell)), abs=1e-9)
    assert float(back.pressure(z, cell)) == pytest.approx(float(potential.pressure(z, cell)), abs=1e-9)


def test_forces_are_a_part_of_the_program(exported, tmp_path) -> None:
    """As exact as the energies, and for any number of configurations; such a program is no potential."""
    file = lv.export_potential(exported.with_suffix(".pt"), tmp_path / "forces.pt2", num_atoms=4, forces=True)
    potential, cell = lv.load_potential(exported.with_suffix(".pt"))[0], PeriodicCell(4, 1.3)
    z = random_protons(cell, 5)
    energy, forces = torch.export.load(file).module()(z, torch.full((5,), cell.length))
    expected = potential.energy_and_forces(z, cell)
    assert (energy - expected[0]).abs().max() < 1e-9
    assert (forces - expected[1]).abs().max() < 1e-9
    with pytest.raises(lv.SettingError, match="it gives more than energies: export it without forces"):
        lv.ExportedPotential.from_file(file)


def test_what_cannot_be_exported_says_so(tmp_path) -> None:
    lv.save_potential(lv.ASEPotential("ase.calculators.lj.LennardJones"), tmp_path / "lj.pt", METADATA)
    with pytest.raises(lv.SettingError, match=r"cannot be exported: a ASEPotential has no cutoff"):
        lv.export_potential(tmp_path / "lj.pt", tmp_path / "lj.pt2", num_atoms=4)
