"""Potentials in files: the same energies and hash after reading, and clear refusals."""

import copy
import json

import pytest
import torch

from lightning_vfe.models.potential.delta import DeltaPotential
from lightning_vfe.models.potential.storage import load_potential, potential_hash, save_potential
from lightning_vfe.models.potential.yukawa import YukawaPotential
from lightning_vfe.physics.cell import PeriodicCell
from tests.helpers.potentials import make_schnet, random_protons

METADATA = {"rs_range": (1.2, 1.3), "temperature_kelvin": 6000.0, "label": {"calculator": "none", "count": 3}}
CELL = PeriodicCell(2, 1.25)


def _kinds():
    network = make_schnet(activation="silu", output_layers=[5, 3])
    return {
        "yukawa": YukawaPotential(1.5, 0.6, 5.0, -0.2),
        "schnet": network,
        "delta": DeltaPotential(DeltaPotential(YukawaPotential(), copy.deepcopy(network)), make_schnet(1)),
    }


@pytest.mark.parametrize("kind", ["yukawa", "schnet", "delta"])
def test_a_stored_potential_comes_back(kind, tmp_path):
    potential, path = _kinds()[kind], tmp_path / "deep" / "potential.pt"
    save_potential(potential, path, METADATA)
    loaded, metadata = load_potential(path)
    z = random_protons(CELL, 3)
    assert torch.equal(loaded.energy(z, CELL), potential.energy(z, CELL))
    assert potential_hash(loaded) == potential_hash(potential)
    assert len(potential_hash(loaded)) == 16
    assert metadata == json.loads(json.dumps(METADATA))
    assert type(loaded) is type(potential)
    assert not loaded.training
    assert [file.name for file in path.parent.iterdir()] == ["potential.pt"]
    torch.load(path, weights_only=True)


def test_the_hash_knows_every_number():
    potential = make_schnet()
    hashes = {potential_hash(potential), potential_hash(make_schnet(yukawa_length=0.71))}
    for parameter in (*potential.parameters(), *potential.buffers()):
        with torch.no_grad():
            parameter.view(-1)[-1] += 1e-9
        hashes.add(potential_hash(potential))
    hashes |= {potential_hash(YukawaPotential()), potential_hash(YukawaPotential(1.1))}
    hashes |= {potential_hash(DeltaPotential(YukawaPotential(), make_schnet()))}
    assert len(hashes) == 2 + len(list(potential.parameters())) + len(list(potential.buffers())) + 3


def test_the_hash_does_not_depend_on_how_it_is_held(tmp_path):
    """Neither a wider type, nor the gradients' state, nor the mode; single precision is raised when read."""
    single = make_schnet().to(torch.float32)
    expected = potential_hash(single)
    save_potential(single, tmp_path / "single.pt", METADATA)
    loaded, _ = load_potential(tmp_path / "single.pt")
    assert loaded.energy_scale.dtype == torch.float64
    assert potential_hash(loaded) == potential_hash(single.requires_grad_(False).eval()) == expected
    assert potential_hash(make_schnet()) != expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_the_hash_is_the_same_on_an_accelerator():
    potential, z = make_schnet(), random_protons(CELL, 3)
    expected, energy = potential_hash(potential), potential.energy(z, CELL)
    potential.cuda()
    assert potential_hash(potential) == expected
    torch.testing.assert_close(potential.energy(z.cuda(), CELL).cpu(), energy, rtol=1e-11, atol=1e-11)


def test_another_density_is_refused(tmp_path):
    save_potential(make_schnet(), tmp_path / "p.pt", METADATA)
    potential, _ = load_potential(tmp_path / "p.pt")
    potential.energy(torch.rand(2, 3), PeriodicCell(2, 1.3))
    with pytest.raises(ValueError, match=r"^rs = 1\.4 is outside the densities rs = 1\.2 to 1\.3"):
        potential.energy(torch.rand(2, 3), PeriodicCell(2, 1.4))


@pytest.mark.parametrize(
    "change", [{"rs_range": None}, {"rs_range": [1.3, 1.2]}, {"label": {"x": torch.ones(1)}}], ids=str
)
def test_unusable_metadata_is_refused(change, tmp_path):
    with pytest.raises(ValueError, match=r"^metadata = .* is unusable"):
        save_potential(YukawaPotential(), tmp_path / "p.pt", METADATA | change)
    incomplete = {key: value for key, value in METADATA.items() if key != "label"}
    with pytest.raises(ValueError, match=r"lacks \['label'\]"):
        save_potential(YukawaPotential(), tmp_path / "p.pt", incomplete)
    assert not list(tmp_path.iterdir())


def _cut(path):
    path.write_bytes(path.read_bytes()[:1000])


def _alter(path):
    content = torch.load(path, weights_only=True)
    content["potential"]["state"]["energy_scale"] += 1e-3
    torch.save(content, path)


def _forget(path):
    content = torch.load(path, weights_only=True)
    del content["potential"]["state"]["energy_scale"]
    torch.save(content, path)


def _pickle(path):
    torch.save(torch.nn.Linear(1, 1), path)


@pytest.mark.parametrize("damage", [_cut, _alter, _forget, _pickle, lambda path: path.unlink()])
def test_unreadable_files_are_refused_in_one_line(damage, tmp_path):
    path = tmp_path / "potential.pt"
    save_potential(make_schnet(), path, METADATA)
    damage(path)
    with pytest.raises(ValueError, match=r"^path = .*potential\.pt") as caught:
        load_potential(path)
    assert "\n" not in str(caught.value)


def test_other_potentials_cannot_be_stored(tmp_path):
    class Other(YukawaPotential):
        pass

    with pytest.raises(ValueError, match=r"^a Other cannot be stored"):
        save_potential(Other(), tmp_path / "p.pt", METADATA)


def test_the_baseline_of_a_sum_is_frozen():
    baseline, correction = make_schnet(), make_schnet(1)
    potential = DeltaPotential(baseline, correction).train()
    assert not baseline.training
    assert correction.training
    z = random_protons(CELL, 2)
    energy, forces = potential.energy_and_forces(z, CELL, create_graph=True)
    (energy.sum() + forces.square().sum()).backward()
    assert all(parameter.grad is None for parameter in baseline.parameters())
    assert all(parameter.grad is not None for parameter in correction.output.parameters())
    torch.testing.assert_close(energy, baseline.energy(z, CELL) + correction.energy(z, CELL))
