"""S(k) of cases with an exact answer, its sum against the Coulomb energy, and the fraction of protons in molecules."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_vfe.errors import SettingError
from lightning_vfe.physics.cell import PeriodicCell, integer_vectors
from lightning_vfe.physics.ewald import Ewald
from lightning_vfe.physics.static_structure import KINDS, StructureFactors, chance_fraction, molecular_fraction

CELL = PeriodicCell(num_atoms=4, rs=1.5)
UNCORRELATED = {
    "proton_proton": 1.0,
    "electron_electron": 1.0,
    "electron_proton": 0.0,
    "charge_charge": 2.0,
    "electron_fluctuation": 1.0,
}


def test_independent_particles() -> None:
    """1 for a kind, 2 for the charge, 0 for a cross term, with errors that are right."""
    factors = StructureFactors(CELL, max_square=9)
    for _ in range(60):
        factors.update(torch.rand(200, 4, 3) * CELL.length, torch.rand(200, 3, 4, 3) * CELL.length)
    result = factors.result()
    assert set(result) == set(KINDS)
    for name, found in result.items():
        pull = (found.s - UNCORRELATED[name]) / found.error
        assert np.abs(pull).max() < 4, f"{name}: {pull}"
        assert 0.2 < np.mean(pull**2) < 2.5, f"{name}: the errors are wrong, {pull}"


def test_shells() -> None:
    """All vectors up to the largest length, each shell at its place in 1/bohr."""
    factors = StructureFactors(CELL, max_square=12)
    squares = (integer_vectors(4) ** 2).sum(1)
    expected = {square: int((squares == square).sum()) for square in range(1, 13) if (squares == square).any()}
    assert dict(zip(factors.squares.tolist(), factors.multiplicities.tolist(), strict=True)) == expected
    factors.update(torch.rand(2, 4, 3), torch.rand(2, 1, 4, 3))
    found = factors.result(unit=2.0)
    assert "electron_fluctuation" not in found  # of a single electron walker
    np.testing.assert_allclose(found["charge_charge"].k, 2 * math.pi / CELL.length / 2.0 * np.sqrt(factors.squares))
    with pytest.raises(SettingError, match="max_square = 0"):
        StructureFactors(CELL, max_square=0)
    with pytest.raises(ValueError, match="no samples yet"):
        StructureFactors(CELL).result()


def test_bragg_peaks_of_a_lattice() -> None:
    """Protons of a 2 x 2 x 2 simple cubic lattice: S = N where all n are even, else 0. Electrons far off them."""
    cell = PeriodicCell(num_atoms=8, rs=1.25)
    corners = torch.tensor([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=torch.float64)
    protons = (corners + 0.3) * cell.length / 2
    electrons = protons + torch.tensor([cell.length / 4, 0.0, 0.0])
    factors = StructureFactors(cell, max_square=8)
    factors.update(protons.expand(2, -1, -1), electrons.expand(2, 3, -1, -1))
    found = {name: values.s for name, values in factors.result().items()}
    bragg = {4: 8.0, 8: 8.0}  # |n|^2: the six (2,0,0), and the twelve (2,2,0)
    exact = np.array([bragg.get(square, 0.0) for square in factors.squares])
    np.testing.assert_allclose(found["proton_proton"], exact, atol=1e-10)
    np.testing.assert_allclose(found["electron_electron"], exact, atol=1e-10)
    np.testing.assert_allclose(found["electron_fluctuation"], 0.0, atol=1e-10)
    # a shift by L/4 along x: exp(i k dx) = -1 for n_x = +-2
    signs = {4: (4 - 2) / 6, 8: (4 - 8) / 12}
    cross = np.array([8.0 * signs.get(square, 0.0) for square in factors.squares])
    np.testing.assert_allclose(found["electron_proton"], cross, atol=1e-10)
    np.testing.assert_allclose(found["charge_charge"], 2 * (exact - cross), atol=1e-10)


def test_sum_over_all_wavevectors_is_the_coulomb_energy() -> None:
    """V = (2 pi N / L^3) sum_k exp(-k^2/4 alpha^2) S_qq(k) / k^2 - 2 N alpha / sqrt(pi) for a screening so short that
    the sum in real space is zero, against physics/ewald.py."""
    protons = torch.tensor([[0.0, 0.0, 0.0], [2.0, 2.0, 0.1], [0.1, 2.0, 2.0], [2.0, 0.2, 2.1]], dtype=torch.float64)
    electrons = torch.stack([protons + torch.tensor([2.0, 0.1, 0.2]), protons + torch.tensor([0.1, 0.3, 1.8])])
    factors = StructureFactors(CELL, max_square=256)
    factors.update(protons.expand(1, -1, -1), electrons.unsqueeze(0))
    charge, alpha = factors.result()["charge_charge"], 3.4
    weights = factors.multiplicities * np.exp(-(charge.k**2) / (4 * alpha**2)) / charge.k**2
    energy = 2 * math.pi * 4 / CELL.volume * float(weights @ charge.s) - 2 * 4 * alpha / math.sqrt(math.pi)
    expected = sum(Ewald(CELL, 1e-12).energies(protons, electrons))
    assert energy == pytest.approx(float(expected.mean()), abs=2e-6)


def free_fermions(waves: Tensor, length: float, walkers: int) -> Tensor:
    """Exact samples of |det exp(i k_a r_b)|^2: positions one after the other, each by rejection from uniform ones.

    Given the first positions, the next has the density |phi|^2 less its part in the span of their phi.

    Returns:
        Positions.  # (walkers, n, 3)
    """
    count = len(waves)
    basis = torch.zeros(walkers, count, count, dtype=torch.complex128)
    positions = torch.zeros(walkers, count, 3, dtype=torch.float64)
    for number in range(count):
        missing = torch.ones(walkers, dtype=torch.bool)
        while missing.any():
            trial = torch.rand(int(missing.sum()), 3, dtype=torch.float64) * length
            phi = torch.exp(1j * (trial @ waves.T)) / math.sqrt(count)
            own = basis[missing, :number]
            rest = phi - torch.einsum("wna,wn->wa", own, torch.einsum("wna,wa->wn", own.conj(), phi))
            accepted = torch.rand(len(trial)) < rest.abs().square().sum(-1)
            place = torch.nonzero(missing)[:, 0][accepted]
            positions[place, number] = trial[accepted]
            basis[place, number] = rest[accepted] / rest[accepted].norm(dim=-1, keepdim=True)
            missing[place] = False
    return positions


@pytest.mark.parametrize("twists", [[[0.0, 0.0, 0.0]], [[0.25, 0.25, 0.25], [0.25, -0.25, 0.25]]])
def test_free_fermions(twists: list[list[float]]) -> None:
    """Slater determinants of plane waves: S(k) = 1 - (pairs of filled waves that differ by k) / n, each spin alike."""
    torch.manual_seed(5)
    cell = PeriodicCell(num_atoms=14, rs=1.25)
    factors, walkers, exact = StructureFactors(cell, max_square=6), 400, 0.0
    vectors = torch.from_numpy(integer_vectors(3).copy()).double()
    shifted = integer_vectors(2)
    samples = []
    for twist in twists:
        lengths = (vectors + torch.tensor(twist, dtype=torch.float64)).square().sum(1)
        filled = vectors[torch.argsort(lengths)[:7]]
        waves = (filled + torch.tensor(twist, dtype=torch.float64)) * 2 * math.pi / cell.length
        spins = [free_fermions(waves, cell.length, walkers * 2) for _ in range(2)]
        samples.append(torch.cat(spins, dim=1).reshape(walkers, 2, 14, 3))
        occupied = {tuple(wave) for wave in filled.long().tolist()}
        pairs = np.array([sum(tuple(np.add(wave, n)) in occupied for wave in occupied) for n in shifted])
        squares = (shifted**2).sum(1)
        own = [1 - pairs[squares == square].mean() / 7 for square in factors.squares]
        exact = exact + np.array(own) / len(twists)
    electrons = torch.cat(samples)
    factors.update(torch.rand(len(electrons), 14, 3) * cell.length, electrons)
    result = factors.result()
    for name in ("electron_electron", "electron_fluctuation"):
        pull = (result[name].s - exact) / result[name].error
        assert np.abs(pull).max() < 4, f"{name}: {pull}"
    assert exact[0] < 0.8  # far from uncorrelated


def test_fluctuations_leave_out_the_mean_density() -> None:
    """Electrons that are independent around a density that follows the protons."""
    torch.manual_seed(3)
    factors = StructureFactors(CELL, max_square=4)
    width = 0.4
    for _ in range(20):
        protons = torch.rand(200, 4, 3) * CELL.length
        factors.update(protons, protons.unsqueeze(1) + width * torch.randn(200, 3, 4, 3))
    found = factors.result()
    form = np.exp(-((width * found["proton_proton"].k) ** 2) / 2)  # of the cloud of one electron
    for name, expected in {"electron_fluctuation": 1 - form**2, "electron_proton": form}.items():
        pull = (found[name].s - expected) / found[name].error
        assert np.abs(pull).max() < 4, f"{name}: {pull}"


def test_walkers_of_two_processes_join_with_weights() -> None:
    parts, whole = [StructureFactors(CELL) for _ in range(2)], StructureFactors(CELL)
    for _ in range(3):
        protons, electrons = torch.rand(6, 4, 3) * CELL.length, torch.rand(6, 2, 4, 3) * CELL.length
        whole.update(protons, electrons)
        parts[0].update(protons[:2], electrons[:2])
        parts[1].update(protons[2:], electrons[2:])
    joined = {name: torch.cat([part.per_walker()[name] for part in parts]) for name in KINDS}
    weights = torch.tensor([2.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    for name, found in whole.result(weights=weights).items():
        np.testing.assert_allclose(found.s, parts[0].result(joined, weights)[name].s, rtol=1e-13)
        per_walker = whole.per_walker()[name].numpy()
        np.testing.assert_allclose(found.s, (2 * per_walker[0] + per_walker[1]) / 3, rtol=1e-6)


def test_molecules() -> None:
    """Two bound protons across the boundary, one long pair, and a third proton that nobody is nearest to."""
    cell = PeriodicCell(num_atoms=6, rs=4.0)
    x = torch.tensor([0.1, cell.length - 1.2, 4.0, 6.0, 8.5, 8.9 - 4.0])
    protons = torch.zeros(1, 6, 3)
    protons[0, :, 0] = x
    protons[0, 4, 1] = 3.0
    # 0 and 1 are 1.3 apart; 2 and 5 are 0.9 apart; 3 has 5 for its neighbour, 4 is alone
    assert molecular_fraction(protons, cell).tolist() == pytest.approx([4 / 6])
    assert molecular_fraction(protons, cell, 1.0).tolist() == pytest.approx([2 / 6])
    assert molecular_fraction(protons, cell, torch.tensor([0.5])).tolist() == [0.0]


def test_chance_pairs() -> None:
    """16/27 of independent uniform points in space are mutual nearest neighbours."""
    torch.manual_seed(2)
    cell = PeriodicCell(num_atoms=400, rs=1.0)
    fractions = molecular_fraction(torch.rand(40, 400, 3) * cell.length, cell, math.inf)
    assert float(fractions.mean()) == pytest.approx(16 / 27, abs=4 * float(fractions.std()) / math.sqrt(40))


def test_fraction_of_independent_points() -> None:
    torch.manual_seed(3)
    cell = PeriodicCell(num_atoms=400, rs=2.0)
    fractions = molecular_fraction(torch.rand(40, 400, 3) * cell.length, cell)
    assert float(fractions.mean()) == pytest.approx(
        chance_fraction(2.0), abs=4 * float(fractions.std()) / math.sqrt(40)
    )
