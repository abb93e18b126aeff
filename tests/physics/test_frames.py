"""Files of protons: what a user's file may look like, and one line for each of its mistakes."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import write

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.frames import LEAST_DISTANCE, closest_pair, frame_of
from lightning_vfe.physics.structures import make_structure
from lightning_vfe.physics.units import BOHR_TO_ANGSTROM

CELL = PeriodicCell(2, 1.25)
EDGE = CELL.length * BOHR_TO_ANGSTROM
APART = ((0.3, 0.2, 0.1), (1.1, 0.9, 0.7))
CUBE = (EDGE, 0.0, 0.0, 0.0, EDGE, 0.0, 0.0, 0.0, EDGE)


def text(positions=APART, box=CUBE, symbol="H", pbc=' pbc="T T T"') -> str:
    """An extended xyz file, in angstrom."""
    lattice = " ".join(str(value) for value in box)
    atoms = [f"{symbol} {' '.join(map(str, position))}" for position in positions]
    return "\n".join([str(len(positions)), f'Lattice="{lattice}" Properties=species:S:1:pos:R:3{pbc}', *atoms, ""])


def place(file):
    return make_structure(str(file), CELL, 1, torch.Generator())


@pytest.mark.parametrize("name", ["h2@rs2.xyz", "a b.xyz", "größe.xyz"])
@pytest.mark.parametrize("pbc", ['pbc="T T T"', ""])
def test_the_name_of_a_file_may_hold_any_character(tmp_path, name, pbc):
    (tmp_path / name).write_text(text(pbc=f" {pbc}"))
    np.testing.assert_allclose(place(tmp_path / name)[0] * BOHR_TO_ANGSTROM, APART, atol=1e-12)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (text(((0.0, 0.2, 0.1), (EDGE, 0.2, 0.1))), ["atoms 0 and 1", "on one site: 0 bohr apart", "0.05 bohr"]),
        (text((APART[0], APART[0])), ["atoms 0 and 1", "on one site"]),
        (text((APART[0], (0.3, 0.2, 0.1 + 1e-7))), ["on one site: 1.9e-07 bohr apart"]),
        (text(((np.nan, 0.2, 0.1), APART[1])), ["positions that are not finite numbers; repair the file"]),
        (text(symbol="D"), ["the symbol D", "write H, and set system.nucleus=D"]),
        (text(symbol="T"), ["the symbol T", "write H, and set system.nucleus=T"]),
        (text(box=[-value for value in CUBE]), ["box of the vectors (-1", "edges along x, y and z"]),
        (text(box=(0, EDGE, 0, 0, 0, EDGE, EDGE, 0, 0)), ["box of the vectors (0, 1", "edges along x, y and z"]),
        (text(box=[value * np.nan for value in CUBE]), ["box of the vectors (nan"]),
        (text(pbc=' pbc="T T F"'), ['not periodic in all directions (pbc="T T F")']),
        ("2\nno box\n" + text().partition("pos:R:3")[2].partition("\n")[2], ["names none", "add the box"]),
        (text(box=[value / BOHR_TO_ANGSTROM for value in CUBE]), ["a box of 2.5", "they are bohr: convert"]),
        ("\ufeff" + text(), ["byte order mark", "save it as UTF-8"]),
    ],
)
def test_a_mistake_in_a_file_is_one_line(tmp_path, content, parts):
    (tmp_path / "protons.xyz").write_text(content)
    with pytest.raises(ValueError, match=r"^structure = ") as caught:
        place(tmp_path / "protons.xyz")
    for part in parts:
        assert part in str(caught.value)


def test_the_message_names_the_frame(tmp_path):
    with pytest.raises(ValueError, match=r"^trajectory = many.xyz: frame 7 holds 2 atoms of He; give hydrogen alone"):
        frame_of(Atoms("He2", APART, cell=[EDGE] * 3, pbc=True), "many.xyz", "trajectory", 7)


def test_the_last_frame_of_several_is_taken(tmp_path):
    frames = [Atoms("H2", np.array(APART) + shift, cell=[EDGE] * 3, pbc=True) for shift in (0.0, 0.01)]
    write(tmp_path / "two.xyz", frames)
    np.testing.assert_allclose(place(tmp_path / "two.xyz")[0] * BOHR_TO_ANGSTROM, np.array(APART) + 0.01, atol=1e-7)


@pytest.mark.parametrize("num_atoms", [2, 5, 40])
def test_the_closest_pair_is_that_of_all_minimum_images(num_atoms):
    """Against all pairs, one after the other, for protons in any image."""
    rng, length = np.random.default_rng(num_atoms), 3.7
    positions = rng.uniform(-2 * length, 2 * length, (num_atoms, 3))
    difference = positions[:, None] - positions
    distances = np.linalg.norm(difference - length * np.round(difference / length), axis=-1)
    distances[np.diag_indices(num_atoms)] = np.inf
    first, second, distance = closest_pair(positions, length)
    assert distance == pytest.approx(distances.min(), rel=1e-12)
    assert distances[first, second] == pytest.approx(distances.min(), rel=1e-12)
    assert first < second


def test_a_single_proton_and_three_on_one_site():
    assert closest_pair(np.zeros((1, 3)), 2.0)[2] == np.inf
    positions = np.array([[0.1, 0.1, 0.1], [1.0, 1.0, 1.0], [2.1, 0.1, 0.1], [0.1, -1.9, 0.1]])
    first, second, distance = closest_pair(positions, 2.0)
    assert {first, second} < {0, 2, 3}
    assert distance < 1e-12 < LEAST_DISTANCE
