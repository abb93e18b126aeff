"""Who is in the cell: masses, spins, the cell in units of rs, and bad input."""

import math

import pytest
from scipy import constants

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.system import System


@pytest.mark.parametrize(
    ("nucleus", "mass", "name"),
    [
        ("H", 1836.15, "hydrogen"),
        ("D", constants.value("deuteron mass") / constants.electron_mass, "deuterium"),
        ("T", constants.value("triton mass") / constants.electron_mass, "tritium"),
        (1836, 1836.0, "hydrogen of nuclear mass 1836"),  # of Xie et al. (2023)
        (206.5, 206.5, "hydrogen of nuclear mass 206.5"),
    ],
)
def test_masses_in_electron_masses(nucleus, mass, name):
    system = System(8, nucleus)
    assert system.nuclear_mass == pytest.approx(mass, rel=1e-8)
    assert isinstance(system.nuclear_mass, float)
    assert system.name == name
    assert System(8).nuclear_mass == 1836.15
    assert System(8, "D").nuclear_mass > 2 * 1835


def test_cell_in_units_of_rs():
    system = System(14)
    assert system.cell == PeriodicCell(14, 1.0)
    assert system.cell.length * 1.31 == pytest.approx(PeriodicCell(14, 1.31).length, rel=1e-15)
    assert system.cell.volume == pytest.approx(4.0 * math.pi * 14 / 3.0, rel=1e-15)


@pytest.mark.parametrize(
    ("num_atoms", "num_up", "spins"),
    [(8, None, (4, 4)), (7, None, (4, 3)), (1, None, (1, 0)), (4, 4, (4, 0)), (4, 0, (0, 4)), (6, 2, (2, 4))],
)
def test_spins_add_up_to_a_neutral_cell(num_atoms, num_up, spins):
    system = System(num_atoms, num_up=num_up)
    assert (system.num_up, system.num_down) == spins


@pytest.mark.parametrize("num_atoms", [0, -2, 2.0, True, "8", None])
def test_num_atoms_must_be_a_positive_integer(num_atoms):
    with pytest.raises(ValueError, match=r"^num_atoms = .* must be a positive integer") as error:
        System(num_atoms)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("nucleus", ["He", "h", "", "1836", None, True, 0, -1836.0, 99.0, math.nan, math.inf, [1836]])
def test_unknown_nuclei_are_refused(nucleus):
    message = r"^nucleus = .* must be one of H \(1836.15\), D .*, T .*, or a mass of at least 100"
    with pytest.raises(ValueError, match=message) as error:
        System(8, nucleus)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("num_up", [-1, 9, 4.0, "4"])
def test_impossible_spins_are_refused(num_up):
    with pytest.raises(ValueError, match=r"^num_up = .* must lie between 0 and 8, the number of electrons$"):
        System(8, num_up=num_up)


def test_systems_compare_by_value():
    assert System(8) == System(8, "H", 4)
    assert System(8, "D") != System(8)
    assert len({System(8), System(8)}) == 1
