"""A model file of SchNetPack, run by SchNetPack itself on ASE atoms and read by this package."""

import ase
import pytest
import torch
from ase import units

from lightning_vfe.models.potential.schnet import SchNetPotential
from lightning_vfe.models.potential.schnetpack_import import schnetpack
from lightning_vfe.models.potential.storage import load_potential, potential_hash, save_potential
from lightning_vfe.physics.cell import PeriodicCell
from tests.helpers.potentials import random_protons

UNITS = {"Ang": units.Ang, "Bohr": units.Bohr, "nm": units.nm}
ENERGIES = {"eV": units.eV, "Ha": units.Hartree, "kcal/mol": units.kcal / units.mol}


def _model(cutoff: float, **changes):
    """A model as SchNetPack's configs build it, in single precision, with parameters like trained ones."""
    spk = schnetpack()
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    offsets = spk.transform.AddOffsets("energy", add_mean=True, add_atomrefs=True)
    offsets.mean[:], offsets.atomref[1] = -0.31, -13.6
    scale = spk.transform.ScaleProperty("energy", scale=torch.tensor([0.05]))
    arguments = {
        "representation": spk.representation.SchNet(
            n_atom_basis=16,
            n_interactions=2,
            radial_basis=spk.nn.GaussianRBF(n_rbf=12, cutoff=cutoff, trainable=changes.pop("trainable", False)),
            cutoff_fn=spk.nn.CosineCutoff(cutoff),
            n_filters=10,
            shared_interactions=changes.pop("shared", False),
        ),
        "input_modules": [spk.atomistic.PairwiseDistances()],
        "output_modules": [spk.atomistic.Atomwise(16, output_key="energy", n_layers=3), spk.atomistic.Forces()],
        "postprocessors": [scale, spk.transform.CastTo64(), offsets],
    }
    model = spk.model.NeuralNetworkPotential(**(arguments | changes))
    torch.set_default_dtype(previous)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "radial_basis" not in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def _run_schnetpack(path, z, cell, position_unit, energy_unit):
    """Energy in Ha and forces in Ha/bohr by SchNetPack, with its own neighbour list in the model's unit."""
    spk = schnetpack()
    model = torch.load(path, weights_only=False).double()
    neighbours = spk.transform.ASENeighborList(cutoff=float(model.representation.cutoff))
    convert = spk.interfaces.AtomsConverter(neighbor_list=neighbours, device="cpu", dtype=torch.float64)
    to_unit, energy = units.Bohr / UNITS[position_unit], ENERGIES[energy_unit] / units.Hartree
    side = cell.length * to_unit
    atoms = ase.Atoms(f"H{cell.num_atoms}", (z * to_unit).numpy(), cell=[side] * 3, pbc=True)
    result = model(convert(atoms))
    scale = model.postprocessors[0].scale if model.do_postprocessing else 1.0
    # SchNetPack's force module comes before the postprocessors, so that its forces lack their scale
    return result["energy"].detach() * energy, result["forces"].detach() * scale * energy * to_unit


@pytest.mark.parametrize(
    ("position_unit", "energy_unit", "cutoff"), [("Ang", "eV", 2.3), ("Bohr", "Ha", 3.0), ("nm", "kcal/mol", 0.19)]
)
def test_it_gives_the_numbers_of_schnetpack(position_unit, energy_unit, cutoff, tmp_path):
    """Cutoffs beyond L/2, all postprocessors, three systems of units: energies and forces to 1e-10."""
    path, cell = tmp_path / "best_model", PeriodicCell(5, 1.25)
    torch.save(_model(cutoff), path)
    z = random_protons(cell, 1)[0]
    potential = SchNetPotential.from_schnetpack(str(path), position_unit, energy_unit)
    energy, forces = potential.energy_and_forces(z, cell)
    expected, expected_forces = _run_schnetpack(path, z, cell, position_unit, energy_unit)
    assert expected_forces.abs().max() > 1e-4 * ENERGIES[energy_unit] / units.Hartree
    torch.testing.assert_close(energy.reshape(1), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(forces, expected_forces, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("option", ["shared", "trainable", "unprocessed", "one layer"])
def test_other_forms_of_the_model(option, tmp_path):
    path, cell = tmp_path / "best_model", PeriodicCell(3, 1.25)
    model = _model(2.0, shared=option == "shared", trainable=option == "trainable")
    if option == "one layer":
        model.output_modules[0] = schnetpack().atomistic.Atomwise(16, output_key="energy", n_layers=1).float()
    model.do_postprocessing = option != "unprocessed"
    torch.save(model, path)
    z = random_protons(cell, 1)[0]
    energy, forces = SchNetPotential.from_schnetpack(str(path), "Ang", "eV").energy_and_forces(z, cell)
    expected, expected_forces = _run_schnetpack(path, z, cell, "Ang", "eV")
    torch.testing.assert_close(energy.reshape(1), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(forces, expected_forces, rtol=1e-8, atol=1e-11)


def test_it_can_be_stored_and_gets_a_repulsion(tmp_path):
    torch.save(_model(2.0), tmp_path / "best_model")
    plain = SchNetPotential.from_schnetpack(str(tmp_path / "best_model"), "Ang", "eV")
    added = SchNetPotential.from_schnetpack(str(tmp_path / "best_model"), "Ang", "eV", yukawa_strength=1.0)
    metadata = {"rs_range": [1.0, 2.0], "temperature_kelvin": 6000.0, "label": {"source": "elsewhere"}}
    save_potential(plain, tmp_path / "potential.pt", metadata)
    loaded, _ = load_potential(tmp_path / "potential.pt")
    cell = PeriodicCell(2, 1.25)
    z = random_protons(cell, 2)
    assert torch.equal(loaded.energy(z, cell), plain.energy(z, cell))
    assert potential_hash(loaded) == potential_hash(plain) != potential_hash(added)
    difference = added.energy(z, cell) - plain.energy(z, cell)
    torch.testing.assert_close(difference, added.repulsion.energy(z, cell))


def _refused(path, match, **changes):
    arguments = {"path": str(path), "position_unit": "Ang", "energy_unit": "eV"} | changes
    with pytest.raises(ValueError, match=match) as caught:
        SchNetPotential.from_schnetpack(**arguments)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_read_is_refused(tmp_path):
    spk, path = schnetpack(), tmp_path / "best_model"
    _refused(path, r"^path = .*no such file")
    path.write_text("not a model")
    _refused(path, r"^path = .*is not a model file")
    torch.save({"state_dict": {}}, path)
    _refused(path, r"holds a dict, not SchNetPack's NeuralNetworkPotential")
    for unit in ("furlong", "__name__", "eV/"):
        _refused(path, r"^energy_unit = .* is not in ase\.units", energy_unit=unit)
    averaged = spk.atomistic.Atomwise(16, output_key="energy", aggregation_mode="avg")
    torch.save(_model(2.0, output_modules=[averaged]), path)
    _refused(path, "no sum over atoms")
    removed = spk.transform.RemoveOffsets("energy", remove_mean=True)
    torch.save(_model(2.0, postprocessors=[removed]), path)
    _refused(path, "postprocessor RemoveOffsets")
    torch.save(_model(2.0), path)
    _refused(path, r"^energy_key = E", energy_key="E")
    model = _model(2.0)
    model.representation.cutoff_fn = spk.nn.MollifierCutoff(2.0)
    torch.save(model, path)
    _refused(path, "cutoff function is MollifierCutoff; only CosineCutoff")
    with pytest.raises(ValueError, match=r"^path = .* convert a SchNetPack model"):
        load_potential(path)
