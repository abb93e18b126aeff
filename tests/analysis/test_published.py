"""Published values nearest to a run, in lines."""

import math
from typing import Any

import pytest

from lightning_vfe.analysis.published import nearest_published, published_lines
from lightning_vfe.analysis.states import State

HYDROGEN = {"num_atoms": 8, "nucleus": "H"}
DEFAULT = State(1.25, 6000.0)


def test_lines_of_the_default_state() -> None:
    """Twist-averaged values first, one row of each method, and what differs."""
    assert published_lines(nearest_published(HYDROGEN, DEFAULT, 8)) == [
        "published: VFE2023, rs = 1.25, 6000 K, N = 16, 8 twists: F = -0.5826 Ha/atom, "
        "E = -0.4650 Ha/atom, S = 6.19 k_B/atom, P = 515 GPa (other N)",
        "published: CEIMC, rs = 1.25, 6000 K, N = 54, twist averaged: F = -0.5737 Ha/atom, "
        "E = -0.4549 Ha/atom, S = 6.25 k_B/atom, P = 553 GPa (other N and twists)",
    ]


@pytest.mark.parametrize(
    ("num_atoms", "num_twists", "row"),
    [(8, 1, (16, "1")), (16, 64, (16, "64")), (54, 64, (54, "64")), (16, math.inf, (16, "216")), (14, 8, (16, "8"))],
)
def test_atoms_and_twists_choose_the_row(num_atoms: int, num_twists: float, row: tuple[int, str]) -> None:
    nearest = nearest_published(HYDROGEN | {"num_atoms": num_atoms}, DEFAULT, num_twists)[0]
    assert (nearest["method"], nearest["N"], nearest["twists"]) == ("VFE2023", *row)


def test_density_and_temperature_come_first() -> None:
    (only,) = nearest_published(HYDROGEN | {"num_atoms": 2}, State(2.0, 6000.0), 1)
    assert (only["method"], only["rs"], only["T_kelvin"], only["differs"]) == ("LRDMC", 2.0, 6000.0, ["N", "twists"])
    near = nearest_published(HYDROGEN, State(1.26, 5500.0), 8)
    assert {row["rs"] for row in near} == {1.25}
    assert near[0]["differs"] == ["rs", "T_kelvin", "N"]
    assert "(other rs and T and N)" in published_lines(near)[0]
    assert nearest_published(HYDROGEN, State(1.5, 6000.0), 8) == []
    assert nearest_published(HYDROGEN, State(1.25, 9000.0), 8) == []


def test_fixed_protons_need_the_same_structure() -> None:
    sixteen: dict[str, Any] = HYDROGEN | {"num_atoms": 16}
    found = nearest_published(sixteen, State(1.31), 1, "bcc")
    assert [row["method"] for row in found] == ["VFE2023", "VMC2003"]
    assert found[0]["E"] == -0.489336
    assert found[0]["differs"] == []
    assert nearest_published(sixteen, State(1.31), 1, "random") == []


def test_free_energies_are_those_of_hydrogen() -> None:
    for row in nearest_published(HYDROGEN | {"nucleus": "D"}, DEFAULT, 8):
        assert {"E", "P"} <= set(row)
        assert not {"F", "S"} & set(row)
