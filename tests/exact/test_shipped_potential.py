"""The potential that the package ships: its labels, its ln Z, and whether it is safe to sample."""

import json
import math

import numpy as np
import pytest
import torch

from lightning_vfe.labels.boundary import label_twists
from lightning_vfe.labels.database import LabelDatabase
from lightning_vfe.log_z.integrate import integrate
from lightning_vfe.log_z.settings import LogZSettings
from lightning_vfe.models.base.boltzmann import BoltzmannBase
from lightning_vfe.models.base.log_z import joint_covariance, log_z_file, read_entries
from lightning_vfe.models.potential.storage import load_potential, potential_hash
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.free_energy import momentum_free_energy
from lightning_vfe.physics.strata import Strata
from lightning_vfe.physics.system import System
from lightning_vfe.physics.twists import twist_grid
from lightning_vfe.physics.units import KELVIN_TO_HARTREE
from lightning_vfe.resources import data_file
from tests.helpers.plasma import pair_grid
from tests.helpers.stability import long_run
from tests.helpers.states import states_at, strata_at

KELVIN, RS = 6000.0, 1.25
KT = KELVIN_TO_HARTREE * KELVIN
FILE = data_file("potentials/h_rs1p25_6000K.pt")
VMC = "h8_vmc_rs1p25_6000K_twists222"
"""Energies of a wavefunction, and the default base with a correction that is fitted to them."""
OF_EIGHT = {"h8_rs1p25_6000K_twists222": [2, 2, 2], "h8_rs1p25_6000K_gamma": [1, 1, 1], VMC: [2, 2, 2]}
"""Potentials of N = 8, with the twists of their labels."""
NUM_LABELS = {"h8_rs1p25_6000K_twists222": 210, "h8_rs1p25_6000K_gamma": 210, VMC: 420}
LN_Z_OF = {"h8_rs1p25_6000K_twists222": [8, 14, 16], "h8_rs1p25_6000K_gamma": [8], VMC: [8]}
"""Sizes whose ln Z is shipped."""
LN_Z_ERROR = {VMC: 0.01}
"""Largest error of ln Z for each atom; of the others 0.005."""

REGION = "h8_rs1p2-2p1_4000-10000K_twists222"
"""Labels and potential of a region of states."""


@pytest.fixture(scope="module")
def potential():
    return load_potential(FILE)[0].requires_grad_(False)


def test_it_fits_the_shipped_labels_as_well_as_it_says(potential):
    """Over all labels, with most of which it was trained."""
    labels = LabelDatabase.open(data_file("data/labels/h_rs1p25_6000K.db"))
    promised = load_potential(FILE)[1]["test_errors"]
    squares = []
    for num_atoms, rs in labels.groups():
        arrays = labels.arrays(num_atoms, rs)
        energy = potential.energy(torch.as_tensor(arrays["positions"]), PeriodicCell(num_atoms, rs)).numpy()
        squares.append(((energy - arrays["free_energy"]) / num_atoms) ** 2)
    rmse = math.sqrt(np.concatenate(squares).mean())
    print(f"rmse {1000 * rmse:.3f} mHa per atom, of the test split {promised}")
    assert rmse < 1.6e-3


def test_the_shipped_vmc_labels_have_the_twists_of_their_baseline():
    """Energies with small errors; half of the protons have DFT labels with these k-points, which differ by a shift."""
    vmc = LabelDatabase.open(data_file(f"data/labels/{VMC}.db"))
    assert vmc.groups() == [(8, RS)]
    assert len(vmc) == 420
    twists = label_twists(vmc.metadata["calculator"])
    assert twists is not None
    assert twists.is_same_average(twist_grid([2, 2, 2], "time_reversal"))
    assert len(vmc.metadata["calculator"]["checkpoint_sha256"]) == 64
    found = vmc.arrays(8, RS)
    known = LabelDatabase.open(data_file("data/labels/h8_rs1p25_6000K_twists222.db")).arrays(8, RS)
    assert np.abs(found["positions"][:210] - known["positions"]).max() < 1e-9
    error = found["energy_error"] / 8
    assert error.mean() < 2e-3
    assert error.max() < 4e-3
    shift = (found["energy"][:210] - known["free_energy"]) / 8
    assert shift.std() < 1.2 * math.sqrt((error[:210] ** 2).mean())


@pytest.mark.parametrize("name", ["h_rs1p25_6000K.db", f"{REGION}.db", *(f"{name}.db" for name in OF_EIGHT)])
def test_provenance_names_no_folder_of_one_machine(name):
    metadata = json.dumps(LabelDatabase.open(data_file(f"data/labels/{name}")).metadata)
    assert "/tmp" not in metadata
    assert "/home" not in metadata


def test_the_potential_of_a_region_has_its_states():
    """Nine states from one problem; it fits its labels as well as it says; a base takes all of them, and no other."""
    file = data_file(f"potentials/{REGION}.pt")
    potential, metadata = load_potential(file)
    states = [[rs, T] for rs in (1.2, 1.65, 2.1) for T in (4000.0, 6000.0, 10000.0)]
    base = BoltzmannBase.from_files(System(8), Strata.of(states=states), file)
    assert len(base.log_z) == 9
    entries = read_entries(log_z_file(file))
    covariance = joint_covariance(entries)
    assert np.linalg.eigvalsh(covariance).min() > 0
    assert covariance[0, 1] != 0
    assert max(entry.log_z_error for entry in entries) < 0.08
    labels, squares = LabelDatabase.open(data_file(f"data/labels/{REGION}.db")), []
    assert len(labels) == 320
    for num_atoms, rs in labels.groups():
        arrays = labels.arrays(num_atoms, rs)
        with torch.no_grad():
            energy = potential.energy(torch.as_tensor(arrays["positions"]), PeriodicCell(num_atoms, rs)).numpy()
        squares.append(((energy - arrays["free_energy"]) / num_atoms) ** 2)
    assert math.sqrt(np.concatenate(squares).mean()) < 1.2 * metadata["test_errors"]["energy_rmse_per_atom"]
    with pytest.raises(ValueError, match=r"temperature_kelvin = 3000.* is outside the temperatures"):
        BoltzmannBase.from_files(System(8), Strata.of(1.3, 3000.0), file)


def test_every_stored_ln_z_belongs_to_it(potential):
    entries = json.loads(FILE.with_suffix(".log_z.json").read_text())["entries"]
    assert [(e["num_atoms"], e["rs"], e["temperature_kelvin"]) for e in entries] == [
        (n, RS, KELVIN) for n in (8, 14, 16, 54)
    ]
    for entry in entries:
        assert entry["potential_hash"] == potential_hash(potential)
        assert entry["converged"]
        assert entry["log_z_error"] < 0.005 * entry["num_atoms"]
        assert "/tmp" not in entry["provenance"]["command"]
        cell = PeriodicCell(entry["num_atoms"], RS)
        base = BoltzmannBase.from_files(System(cell.num_atoms), strata_at(cell), "potentials/h_rs1p25_6000K.pt")
        z = cell.length * torch.rand(3, cell.num_atoms, 3, generator=torch.Generator().manual_seed(0))
        log_prob = base.log_prob(z, states_at(cell, 3))
        torch.testing.assert_close(log_prob, -potential.energy(z, cell) / KT - base.log_z)


def test_free_energy_per_atom_hardly_depends_on_the_cell():
    """Momenta included; the interaction is of short range, so that N = 8, 14, 16 and 54 differ by 0.9 mHa at most."""
    entries = json.loads(FILE.with_suffix(".log_z.json").read_text())["entries"]
    momenta = [float(momentum_free_energy(System(e["num_atoms"]), KT)) for e in entries]
    found = [(free - KT * e["log_z"]) / e["num_atoms"] for free, e in zip(momenta, entries, strict=True)]
    assert found == pytest.approx([-0.57567, -0.57582, -0.57606, -0.57648], abs=1e-5)


@pytest.mark.parametrize("name", OF_EIGHT)
def test_a_potential_of_eight_atoms_belongs_to_its_twists_labels_and_ln_z(name):
    """The k-points that its name says, energies within the error that it promises, and ln Z of these parameters."""
    file = data_file(f"potentials/{name}.pt")
    found, metadata = load_potential(file)
    twists = label_twists(metadata["label"]["calculator"])
    assert twists is not None
    assert twists.is_same_average(twist_grid(OF_EIGHT[name]))
    assert metadata["num_atoms"] == [8]
    labels = LabelDatabase.open(data_file(f"data/labels/{name}.db"))
    assert labels.metadata["calculator"] == metadata["label"]["calculator"]
    assert len(labels) == NUM_LABELS[name]
    arrays, cell = labels.arrays(8, RS), PeriodicCell(8, RS)
    with torch.no_grad():
        energy = found.energy(torch.as_tensor(arrays["positions"]), cell).numpy()
    rmse = math.sqrt((((energy - arrays["free_energy"]) / 8) ** 2).mean())
    print(f"rmse {1000 * rmse:.3f} mHa per atom, of the test split {metadata['test_errors']}")
    assert rmse < 1.2 * metadata["test_errors"]["energy_rmse_per_atom"]
    entries = json.loads(file.with_suffix(".log_z.json").read_text())["entries"]
    assert [entry["num_atoms"] for entry in entries] == LN_Z_OF[name]
    assert "/tmp" not in json.dumps([entries, metadata])
    for entry in entries:
        assert (entry["rs"], entry["temperature_kelvin"]) == (RS, KELVIN)
        assert entry["potential_hash"] == potential_hash(found)
        assert entry["converged"]
        assert entry["log_z_error"] < LN_Z_ERROR.get(name, 0.005) * entry["num_atoms"]
        cell = PeriodicCell(entry["num_atoms"], RS)
        base = BoltzmannBase.from_files(System(cell.num_atoms), strata_at(cell), f"potentials/{name}.pt")
        assert (base.log_z, base.log_z_error) == (entry["log_z"], entry["log_z_error"])


def test_the_correction_sits_on_the_default_base():
    corrected = load_potential(data_file(f"potentials/{VMC}.pt"))[0]
    assert potential_hash(corrected.baseline) == potential_hash(
        load_potential(data_file("potentials/h8_rs1p25_6000K_twists222.pt"))[0]
    )


@pytest.mark.parametrize("name", ["h_rs1p25_6000K", *OF_EIGHT])
def test_no_hole_in_a_long_run(name):
    """Chains from protons at random stay at physical distances, at energies between those of the labels."""
    cell, potential = PeriodicCell(8, RS), load_potential(data_file(f"potentials/{name}.pt"))[0].requires_grad_(False)
    found = long_run(lambda z: potential.energy(z, cell), cell, KT, num_chains=16, num_sweeps=120)
    print(found)
    labels = LabelDatabase.open(data_file(f"data/labels/{name}.db")).arrays(8, RS)
    assert found.smallest_distance > 0.7
    assert found.lowest_energy > labels["free_energy"].min() / 8 - 3e-3
    assert abs(found.energy_drift) < 0.3
    assert found.r_hat < 1.1


def test_ln_z_of_two_protons_agrees_with_quadrature(potential):
    cell = PeriodicCell(2, RS)

    def exact(points: int) -> float:
        energy = torch.cat([potential.energy(part, cell) for part in pair_grid(cell, points).split(4096)])
        return torch.logsumexp(-energy / KT, 0).item() - 3 * math.log(points) + 6 * math.log(cell.length)

    fine = exact(24)
    assert abs(fine - exact(18)) < 5e-3
    settings = LogZSettings(num_chains=12, num_sweeps=200, max_sweeps=600, target_error_per_atom=0.02, seed=3)
    found = integrate([lambda z: potential.energy(z, cell)], cell, KT, settings)
    print(f"ln Z = {found.log_z:.4f} +- {found.log_z_error:.4f}, exact {fine:.4f}")
    assert found.converged, found.reasons
    assert found.log_z_error < 0.05
    assert abs(found.log_z - fine) < 2 * found.log_z_error
