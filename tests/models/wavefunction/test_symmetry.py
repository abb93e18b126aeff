"""What the wavefunction must do under exchanges and translations, with parameters far from their start."""

import itertools
import math

import pytest
import torch

from lightning_vfe.models.wavefunction.wavefunction import GeminalWavefunction
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.system import System
from tests.helpers.states import states_at
from tests.helpers.wavefunctions import GAMMA, GENERAL_TWIST, make_wavefunction, random_configurations

TWISTS = torch.tensor([GAMMA, GENERAL_TWIST, (0.5, 0.0, 0.5)], dtype=torch.float64).unsqueeze(1)  # (W, 1, 3)
TOLERANCE = 1e-10


class Case:
    """A wavefunction with one proton walker at each of three twists, and four electron walkers for each."""

    def __init__(self, num_atoms, num_determinants):
        self.cell = PeriodicCell(num_atoms, 1.31)
        self.wavefunction = make_wavefunction(self.cell, seed=num_atoms, num_determinants=num_determinants)
        self.protons, self.electrons = random_configurations(self.cell, 3, 4, seed=num_atoms)
        self.states = states_at(self.cell, twist=TWISTS)
        self.num_up = num_atoms // 2
        with torch.no_grad():
            self.log_psi = self.wavefunction.log_psi(self.protons, self.electrons, self.states)

    def ratio(self, protons=None, electrons=None):
        """psi of the changed positions over psi of the original ones. # (3, 4)"""
        protons = self.protons if protons is None else protons
        electrons = self.electrons if electrons is None else electrons
        with torch.no_grad():
            return torch.exp(self.wavefunction.log_psi(protons, electrons, self.states) - self.log_psi)


@pytest.fixture(params=[(2, 2), (4, 1), (4, 3), (6, 2), (8, 1)], ids=lambda p: f"N{p[0]}-K{p[1]}")
def case(request):
    return Case(*request.param)


def _assert_ratios(record_property, ratios, expected):
    error = max((ratio - value).abs().max().item() for ratio, value in zip(ratios, expected, strict=True))
    record_property("largest_error", error)
    print(f"largest error {error:.1e}")
    assert error < TOLERANCE, f"largest error {error:.1e}"


def test_parameters_matter(case):
    """The networks move |psi| by far more than the tolerance; else the tests below would show nothing."""
    system, sizes = System(case.cell.num_atoms), {"num_layers": 2, "single_width": 8, "pair_width": 6}
    fresh = GeminalWavefunction(system, StatePoint(case.cell.rs), 1, **sizes)
    with torch.no_grad():
        change = case.log_psi - fresh.log_psi(case.protons, case.electrons, case.states)
    assert change.real.std() > 0.1
    assert case.log_psi.imag.std() > 0.1


def test_antisymmetric_in_the_electrons_of_each_spin(case, record_property):
    up, down = range(case.num_up), range(case.num_up, 2 * case.num_up)
    pairs = [*itertools.combinations(up, 2), *itertools.combinations(down, 2)]
    if not pairs:
        pytest.skip("one electron of each spin")
    ratios = []
    for i, j in pairs:
        order = list(range(2 * case.num_up))
        order[i], order[j] = order[j], order[i]
        ratios.append(case.ratio(electrons=case.electrons[..., order, :]))
    _assert_ratios(record_property, ratios, [-1.0] * len(ratios))


def test_symmetric_in_the_protons(case, record_property):
    num = 2 * case.num_up
    orders = [[*list(range(1, num)), 0], list(reversed(range(num))), [1, 0, *range(2, num)]]
    ratios = [case.ratio(protons=case.protons[..., order, :]) for order in orders]
    _assert_ratios(record_property, ratios, [1.0] * len(ratios))


def test_unchanged_when_all_spins_flip(case, record_property):
    flipped = torch.cat([case.electrons[..., case.num_up :, :], case.electrons[..., : case.num_up, :]], dim=-2)
    _assert_ratios(record_property, [case.ratio(electrons=flipped).abs()], [1.0])


def test_joint_translation_gives_the_phase_of_the_twist(case, record_property):
    shift = torch.tensor([0.37, -1.21, 2.05])
    ratio = case.ratio(protons=case.protons + shift, electrons=case.electrons + shift)
    momentum = 2.0 * math.pi / case.cell.length * TWISTS
    phase = 2 * case.num_up * (momentum * shift).sum(-1)
    _assert_ratios(record_property, [ratio, ratio.abs()], [torch.exp(1j * phase), 1.0])


def test_lattice_translation_of_one_electron_gives_the_phase_of_the_twist(case, record_property):
    ratios, expected = [], []
    for electron, axis, cells in itertools.product(range(2 * case.num_up), range(3), (1, -2)):
        moved = case.electrons.clone()
        moved[..., electron, axis] += cells * case.cell.length
        ratios.append(case.ratio(electrons=moved))
        expected.append(torch.exp(2j * math.pi * cells * TWISTS[..., axis]))
    _assert_ratios(record_property, ratios, expected)


def test_lattice_translation_of_one_proton_changes_nothing(case, record_property):
    ratios = []
    for proton, axis in itertools.product((0, 2 * case.num_up - 1), range(3)):
        moved = case.protons.clone()
        moved[..., proton, axis] += case.cell.length
        ratios.append(case.ratio(protons=moved))
    _assert_ratios(record_property, ratios, [1.0] * len(ratios))


def test_one_electron_alone_does_not_commute_with_the_others_spin(case):
    """Exchanging an up and a down electron is not a symmetry of the amplitude, except for two electrons."""
    if case.num_up == 1:
        pytest.skip("for two electrons the exchange is the spin flip")
    order = list(range(2 * case.num_up))
    order[0], order[case.num_up] = order[case.num_up], order[0]
    assert (case.ratio(electrons=case.electrons[..., order, :]).abs() - 1.0).abs().max() > 1e-3


def test_leading_dimensions_broadcast():
    cell = PeriodicCell(4, 1.31)
    wavefunction = make_wavefunction(cell)
    protons, electrons = random_configurations(cell, 3, 4)
    states = states_at(cell, twist=TWISTS)
    full = wavefunction.log_psi(protons, electrons, states)
    assert full.shape == (3, 4)
    assert full.is_complex()
    one = wavefunction.log_psi(protons[1, 0], electrons[1, 2], states[1, 0])
    torch.testing.assert_close(one, full[1, 2], rtol=1e-12, atol=1e-12)
    row = wavefunction.log_psi(protons[1], electrons[1], states[1])
    torch.testing.assert_close(row, full[1], rtol=1e-12, atol=1e-12)
    all_twists = wavefunction.log_psi(protons[1, 0], electrons[1, 2], states[:, 0])
    assert all_twists.shape == (3,)
    torch.testing.assert_close(all_twists[1], full[1, 2], rtol=1e-12, atol=1e-12)
