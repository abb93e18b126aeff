"""Proton structures: lattices, random and molecular fluids, files, and bad input."""

import pytest
import torch
from ase import Atoms
from ase.io import write

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.structures import BOND_LENGTH, make_structure
from lightning_vfe.physics.units import BOHR_TO_ANGSTROM


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _distances(cell, positions):
    """Minimum-image distances with the diagonal at infinity.  # (W, N, N)"""
    displacement = cell.minimum_image(positions.unsqueeze(-2) - positions.unsqueeze(-3))
    return displacement.norm(dim=-1) + torch.diag(torch.full((cell.num_atoms,), torch.inf))


@pytest.mark.parametrize(
    ("name", "num_atoms", "neighbours", "distance"),
    [("sc", 27, 6, 1.0), ("bcc", 16, 8, 0.75**0.5), ("bcc", 54, 8, 0.75**0.5), ("fcc", 32, 12, 0.5**0.5)],
)
def test_lattices_have_their_coordination(name, num_atoms, neighbours, distance):
    cell = PeriodicCell(num_atoms, 1.25)
    positions = make_structure(name, cell, 3, _generator())
    assert positions.shape == (3, num_atoms, 3)
    assert torch.equal(positions[0], positions[2])
    assert (positions >= 0).all()
    assert (positions < cell.length).all()
    edge = cell.length / round((num_atoms / {"sc": 1, "bcc": 2, "fcc": 4}[name]) ** (1 / 3))
    distances = _distances(cell, positions)
    assert (distances.amin(dim=-1) / edge - distance).abs().max() < 1e-12
    assert ((distances < 1.001 * distance * edge).sum(dim=-1) == neighbours).all()


def test_a_lattice_that_does_not_fit_says_which_sizes_do():
    with pytest.raises(ValueError, match=r"^structure = bcc needs system.num_atoms among 2, 16, 54, .*not 14"):
        make_structure("bcc", PeriodicCell(14, 1.25), 1, _generator())


@pytest.mark.parametrize(("num_atoms", "rs"), [(2, 1.0), (3, 2.0), (16, 1.25), (54, 1.25)])
def test_random_keeps_a_minimum_distance(num_atoms, rs):
    cell = PeriodicCell(num_atoms, rs)
    positions = make_structure("random", cell, 40, _generator())
    assert positions.shape == (40, num_atoms, 3)
    assert (positions >= 0).all()
    assert (positions < cell.length).all()
    assert _distances(cell, positions).min() >= rs
    assert not torch.allclose(positions[0], positions[1])


@pytest.mark.parametrize(("num_atoms", "rs"), [(2, 1.0), (4, 1.25), (16, 1.25), (32, 2.5)])
def test_molecular_has_bonds_and_keeps_molecules_apart(num_atoms, rs):
    cell = PeriodicCell(num_atoms, rs)
    positions = make_structure("molecular", cell, 40, _generator())
    distances = _distances(cell, positions)
    first = torch.arange(0, num_atoms, 2)
    assert (distances[:, first, first + 1] - BOND_LENGTH).abs().max() < 1e-12
    distances[:, first, first + 1] = torch.inf
    distances[:, first + 1, first] = torch.inf
    assert distances.min() >= rs


def test_molecular_orientations_are_uniform():
    cell = PeriodicCell(8, 2.0)
    positions = make_structure("molecular", cell, 500, _generator())
    bond = cell.minimum_image(positions[:, 0::2] - positions[:, 1::2]) / BOND_LENGTH
    # For a uniform direction u: <u_d^2> = 1/3, with the variance 4/45.
    error = (4.0 / 45.0 / 2000) ** 0.5
    assert (bond.square().mean(dim=(0, 1)) - 1.0 / 3.0).abs().max() < 4.0 * error


def test_the_generator_decides():
    cell = PeriodicCell(16, 1.25)
    for name in ("random", "molecular"):
        assert torch.equal(make_structure(name, cell, 5, _generator(3)), make_structure(name, cell, 5, _generator(3)))
        assert not torch.equal(
            make_structure(name, cell, 5, _generator(3)), make_structure(name, cell, 5, _generator(4))
        )


def test_result_is_in_the_default_type():
    torch.set_default_dtype(torch.float32)
    positions = make_structure("random", PeriodicCell(8, 1.25), 2, _generator())
    assert positions.dtype == torch.float32


def _write(path, cell, symbols="H8", scale=1.0):
    box = cell.length * BOHR_TO_ANGSTROM * scale
    positions = _generator_positions(cell) * BOHR_TO_ANGSTROM * scale
    write(path, Atoms(symbols, positions=positions, cell=[box] * 3, pbc=True))


def _generator_positions(cell):
    return cell.length * torch.rand(cell.num_atoms, 3, generator=_generator(7)).numpy()


def test_a_file_is_read_in_bohr(tmp_path):
    cell = PeriodicCell(8, 1.25)
    _write(tmp_path / "protons.xyz", cell)
    positions = make_structure(str(tmp_path / "protons.xyz"), cell, 2, _generator())
    assert positions.shape == (2, 8, 3)
    assert (positions[1] - torch.tensor(_generator_positions(cell))).abs().max() < 1e-7


@pytest.mark.parametrize(
    ("symbols", "num_atoms", "scale", "message"),
    [
        ("H7He", 8, 1.0, r"holds 8 atoms of H/He"),
        ("H6", 6, 1.0, r"holds 6 atoms of H; system.num_atoms = 8"),
        ("H8", 8, 1.01, r"has a box of .* angstrom"),
    ],
)
def test_a_file_that_does_not_match_is_refused(tmp_path, symbols, num_atoms, scale, message):
    path = tmp_path / "protons.xyz"
    _write(path, PeriodicCell(num_atoms, 1.25), symbols=symbols, scale=scale)
    with pytest.raises(ValueError, match=message) as caught:
        make_structure(str(path), PeriodicCell(8, 1.25), 1, _generator())
    assert str(caught.value).startswith("structure = ")
    assert "\n" not in str(caught.value)


def test_a_file_without_a_box_or_that_cannot_be_read_is_refused(tmp_path):
    cell = PeriodicCell(8, 1.25)
    write(tmp_path / "boxless.xyz", Atoms("H8", positions=_generator_positions(cell)), format="xyz")
    (tmp_path / "broken.xyz").write_text("8\nnothing\nH 1 2\n")
    with pytest.raises(ValueError, match="has a box of"):
        make_structure(str(tmp_path / "boxless.xyz"), cell, 1, _generator())
    with pytest.raises(ValueError, match="cannot be read by ASE") as caught:
        make_structure(str(tmp_path / "broken.xyz"), cell, 1, _generator())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "num_atoms", "num_walkers", "message"),
    [
        ("hcp", 16, 1, r"^structure = hcp is neither a file nor one of sc, bcc, fcc, molecular, random"),
        ("molecular", 7, 1, r"^structure = molecular needs an even system.num_atoms, not 7"),
        ("molecular", 2, 0, r"^num_walkers = 0 must be positive"),
    ],
)
def test_bad_input_is_one_clear_line(name, num_atoms, num_walkers, message):
    with pytest.raises(ValueError, match=message):
        make_structure(name, PeriodicCell(num_atoms, 1.25), num_walkers, _generator())
