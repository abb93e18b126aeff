"""The database of labels: what goes in comes out, other programs read it, and damage is one line."""

import math
import resource
from pathlib import Path

import numpy as np
import pytest
from ase.db import connect

from lightning_vfe.labels.database import LabelDatabase, LabelState
from lightning_vfe.labels.label import Configuration, Label
from lightning_vfe.labels.store import LabelStore
from lightning_vfe.models.potential.schnetpack_import import schnetpack
from lightning_vfe.physics.units import BOHR_TO_ANGSTROM, HARTREE_TO_EV

STATES = [LabelState(2, 1.25, 6000.0), LabelState(4, 1.4, 6000.0)]
CALCULATOR = {"_target_": "some.Calculator", "cutoff": 60.0}
PROVENANCE = {"code_version": "0.1", "program": "test", "command": ["lightning-vfe label"]}


def label_of(configuration: Configuration) -> Label:
    value = float(configuration.positions.sum())
    return Label(value - 0.25, value, -configuration.positions, 400.0 + value)


def filled(path: Path, calculator: dict = CALCULATOR, leave: int = 0) -> LabelStore:
    """Three configurations of each state, labelled except for the last ones."""
    rng = np.random.default_rng(0)
    store = LabelStore(path, STATES, calculator)
    store.update_metadata(**PROVENANCE)
    batches = []
    for state in STATES:
        length = state.cell.length
        batches.append((state, [Configuration(rng.uniform(0, length, (state.num_atoms, 3)), length) for _ in range(3)]))
    store.add_pending(batches, 0, "random")
    rows = store.pending()
    for row, _, configuration in rows[: len(rows) - leave]:
        store.finish(row, label_of(configuration))
    return store


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    store = filled(tmp_path / "labels.db")
    database = LabelDatabase.open(tmp_path / "labels.db")
    assert database.groups() == [(2, 1.25), (4, 1.4)]
    assert len(database) == 6
    for state in STATES:
        arrays = database.arrays(state.num_atoms, state.rs)
        kept = [(row, place) for row, point, place in store.labelled() if point == state]
        assert arrays["positions"].shape == arrays["forces"].shape == (3, state.num_atoms, 3)
        assert arrays["id"].tolist() == [row for row, _ in kept]
        for index, (row, place) in enumerate(kept):
            np.testing.assert_allclose(arrays["positions"][index], place.positions, rtol=1e-13)
            assert arrays["free_energy"][index] == pytest.approx(place.positions.sum() - 0.25)
            assert arrays["energy"][index] == pytest.approx(place.positions.sum())
            assert store.label(row).pressure_gpa == pytest.approx(arrays["pressure_gpa"][index])
        assert "energy_error" not in arrays
    with pytest.raises(ValueError, match="no labels of num_atoms = 3"):
        database.arrays(3, 1.25)


def test_schnetpack_reads_it(tmp_path: Path) -> None:
    schnetpack()
    from schnetpack.data import ASEAtomsData

    filled(tmp_path / "labels.db")
    arrays = LabelDatabase.open(tmp_path / "labels.db").arrays(2, 1.25)
    data = ASEAtomsData(str(tmp_path / "labels.db"), distance_unit="Bohr", property_units={"free_energy": "eV"})
    assert len(data) == 6
    assert float(data[0]["free_energy"]) == pytest.approx(arrays["free_energy"][0] * HARTREE_TO_EV, rel=1e-6)
    np.testing.assert_allclose(data[0]["_positions"], arrays["positions"][0], rtol=1e-5)


def test_pending_and_failed_rows_are_no_labels(tmp_path: Path) -> None:
    store = filled(tmp_path / "labels.db", leave=2)
    (first, _, _), (second, _, _) = store.pending()
    store.finish(first, "RuntimeError: 12")
    assert store.failures() == [(first, "RuntimeError: 12")]
    assert len(LabelDatabase.open(tmp_path / "labels.db")) == 4
    assert [row for row, _, _ in LabelStore(tmp_path / "labels.db", STATES, CALCULATOR).pending()] == [second]
    store.retry_failed()
    assert len(store.pending()) == 2
    assert store.failures() == []


def test_it_goes_on_with_the_same_calculator_and_states_only(tmp_path: Path) -> None:
    path = tmp_path / "labels.db"
    filled(path)
    LabelStore(path, STATES, {**CALCULATOR, "command": "/elsewhere/pw.x"})
    with pytest.raises(ValueError, match=r"^database = .* was started with the calculator"):
        LabelStore(path, STATES, {**CALCULATOR, "cutoff": 80.0})
    with pytest.raises(ValueError, match=r"^database = .* was started with the states"):
        LabelStore(path, STATES[:1], CALCULATOR)


def test_an_empty_database_is_begun_anew(tmp_path: Path) -> None:
    LabelStore(tmp_path / "labels.db", STATES[:1], CALCULATOR)
    assert LabelStore(tmp_path / "labels.db", STATES, CALCULATOR).metadata["states"] == [vars(s) for s in STATES]


def set_metadata(path: Path, **entries: object) -> None:
    connection = connect(path)
    connection.metadata = {**connection.metadata, **entries}


def test_missing_metadata_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "labels.db"
    filled(path)
    kept = connect(path).metadata
    connect(path).metadata = {}
    with pytest.raises(ValueError, match=r"^database = .* lacks the metadata format, units, calculator"):
        LabelDatabase.open(path)
    connect(path).metadata = {name: value for name, value in kept.items() if name != "units"}
    with pytest.raises(ValueError, match="lacks the metadata units"):
        LabelDatabase.open(path)


def test_other_units_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "labels.db"
    filled(path)
    units = connect(path).metadata["units"]
    set_metadata(path, units={**units, "forces": "eV/Ang"})
    with pytest.raises(ValueError, match="has forces in eV/Ang, which must be in Hartree/Bohr"):
        LabelDatabase.open(path)


def test_mixed_rows_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "labels.db"
    filled(path)
    connection = connect(path)
    row = connection.get(id=2)
    connection.update(2, units="Ang, eV, eV/Ang")
    with pytest.raises(ValueError, match="mixes units: row 2 has units 'Ang, eV, eV/Ang'"):
        LabelDatabase.open(path)
    connection.update(2, units=row.units, settings="EMT-1")
    with pytest.raises(ValueError, match="mixes calculators: row 2 is of 'EMT-1'"):
        LabelDatabase.open(path)
    connection.update(2, settings=row.settings)
    LabelDatabase.open(path)
    connection.write(row.toatoms(), rs=1.25, temperature_kelvin=6000.0, data={"free_energy": 1.0})
    with pytest.raises(ValueError, match="mixes units: row 7 has no units"):
        LabelDatabase.open(path)


def test_positions_in_other_units_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "labels.db"
    filled(path)
    atoms = connect(path).get_atoms(id=1)
    atoms.set_cell(atoms.cell / BOHR_TO_ANGSTROM, scale_atoms=True)
    connect(path).update(1, atoms=atoms)
    with pytest.raises(ValueError, match=r"row 1 has a box of .* its positions are in other units than Ang"):
        LabelDatabase.open(path)


def test_numbers_that_are_not_finite_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "labels.db"
    filled(path)
    connect(path).update(3, data={"free_energy": np.array([math.nan])})
    with pytest.raises(ValueError, match="row 3 has no finite free_energy"):
        LabelDatabase.open(path)


def write_without_checksum(path: Path, row: int, **changes: object) -> None:
    """Change a row as it could stand in a database of version 0.2, which has no checksums."""
    connection = connect(path)
    connection.update(row, delete_keys=["checksum"], **changes)


def test_rows_that_no_calculation_can_leave_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "labels.db"
    filled(path)
    whole = path.read_bytes()
    atoms = connect(path).get_atoms(id=2)
    broken, double = atoms.copy(), atoms.copy()
    broken.positions[1, 0] = math.nan
    double.positions[1] = double.positions[0] + [atoms.cell[0, 0], 0.0, 1e-4]
    for changes, message in [
        ({"atoms": broken}, "row 2 has positions that are not finite"),
        ({"atoms": double}, r"row 2 has atoms 0 and 1 \(counted from 0\) on one site"),
        ({"data": {"pressure_gpa": np.array([math.inf])}}, "row 2 has numbers that are not finite"),
        ({"data": {"forces": np.zeros((3, 3))}}, "row 2 has forces of another number of atoms"),
        ({"state": "donf"}, "row 2 has the state 'donf'"),
    ]:
        write_without_checksum(path, 2, **changes)
        with pytest.raises(ValueError, match=message):
            LabelDatabase.open(path)
        path.write_bytes(whole)
    write_without_checksum(path, 2)
    assert len(LabelDatabase.open(path)) == 6


def test_a_changed_number_is_found_by_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "labels.db"
    filled(path, leave=1)
    whole = path.read_bytes()
    atoms = connect(path).get_atoms(id=2)
    atoms.positions[1, 2] += 1e-9
    for row, changes in [
        (2, {"atoms": atoms}),
        (2, {"temperature_kelvin": 6001.0}),
        (2, {"data": {"free_energy": connect(path).get(id=2).data["free_energy"] + 1e-9}}),
        (2, {"state": "pending"}),
        (6, {"round": 1}),
    ]:
        connect(path).update(row, **changes)
        with pytest.raises(ValueError, match=rf"^database = .* is damaged: row {row} does not have its checksum; take"):
            LabelDatabase.open(path)
        with pytest.raises(ValueError, match=f"row {row} does not have its checksum"):
            LabelStore(path, STATES, CALCULATOR)
        path.write_bytes(whole)
    set_metadata(path, program="another")
    with pytest.raises(ValueError, match="is damaged: its metadata do not have their checksum"):
        LabelDatabase.open(path)


def test_a_row_keeps_a_right_checksum_through_failure_and_retry(tmp_path: Path) -> None:
    store = filled(tmp_path / "labels.db", leave=1)
    ((row, _, configuration),) = store.pending()
    store.finish(row, "RuntimeError: 12")
    assert len(LabelDatabase.open(tmp_path / "labels.db")) == 5
    LabelStore(tmp_path / "labels.db", STATES, CALCULATOR).retry_failed()
    store.finish(row, label_of(configuration))
    assert len(LabelDatabase.open(tmp_path / "labels.db")) == 6


def opened(path: Path) -> tuple[LabelDatabase | None, str]:
    """The database, or the message that refuses it."""
    try:
        return LabelDatabase.open(path), ""
    except ValueError as error:
        return None, str(error)


def test_no_flipped_bit_gives_other_labels(tmp_path: Path) -> None:
    """Any bit of the file: the same labels as before, or one line."""
    path = tmp_path / "labels.db"
    filled(path)
    whole, before = path.read_bytes(), LabelDatabase.open(path)
    rng, refused = np.random.default_rng(3), 0
    for place in rng.integers(len(whole), size=60):
        flipped = bytes([whole[place] ^ (1 << int(rng.integers(8)))])
        path.write_bytes(whole[:place] + flipped + whole[place + 1 :])
        after, message = opened(path)
        if after is None:
            assert message.startswith("database = ")
            assert "\n" not in message
            refused += 1
            continue
        assert after.groups() == before.groups()
        for group in before.groups():
            for name, array in before.arrays(*group).items():
                np.testing.assert_array_equal(after.arrays(*group)[name], array)
    assert refused > 5


@pytest.mark.parametrize("content", ["text\n" * 100, ""])
def test_files_that_are_no_database(tmp_path: Path, content: str) -> None:
    path = tmp_path / "labels.db"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"^database = .*"):
        LabelDatabase.open(path)
    with pytest.raises(ValueError, match=r"^database = .* does not exist"):
        LabelDatabase.open(tmp_path / "none.db")


def test_a_database_without_finished_labels(tmp_path: Path) -> None:
    filled(tmp_path / "labels.db", leave=6)
    with pytest.raises(ValueError, match="holds no finished labels"):
        LabelDatabase.open(tmp_path / "labels.db")


def test_a_full_disk_at_the_start_leaves_no_broken_database(tmp_path: Path) -> None:
    """What sqlite leaves where it cannot write the first pages would block the same command later."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, before[1]))
    try:
        with pytest.raises(Exception, match=r"disk|full|I/O"):
            LabelStore(tmp_path / "labels.db", STATES, CALCULATOR)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())
    assert len(filled(tmp_path / "labels.db").pending()) == 0
