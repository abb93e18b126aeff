"""The envelope of the geminal: Fermi function of matrices, mean-field limits, open shells, gradients, bad input."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy import linalg

from lightning_vfe.models.wavefunction.fermi import OPEN_SHELL, fermi_function
from lightning_vfe.models.wavefunction.orbitals import PlaneWaveEnvelope, open_shell_weights
from lightning_vfe.models.wavefunction.wavefunction import GeminalWavefunction
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.structures import make_structure
from lightning_vfe.physics.system import System
from tests.helpers.states import states_at
from tests.helpers.wavefunctions import GAMMA, GENERAL_TWIST, random_configurations, trained_like


def _hermitian(*shape, seed=0):
    real, imag = (torch.randn(*shape, generator=torch.Generator().manual_seed(seed + i)) for i in (0, 1))
    matrix = torch.complex(real, imag)
    return 0.5 * (matrix + matrix.mH)


def _with_levels(levels, seed=0):
    vectors = torch.linalg.qr(_hermitian(len(levels), len(levels), seed=seed))[0]
    return vectors @ torch.diag(torch.tensor(levels)).to(vectors.dtype) @ vectors.mH


# --- the Fermi function of a matrix ---------------------------------------------------------------------------------


@pytest.mark.parametrize("num_filled", [1, 2, 5])
def test_fermi_function_as_a_general_function_of_a_matrix(num_filled):
    """Against SciPy's Schur-Parlett algorithm, which does not diagonalise."""
    hamiltonian, beta = _hermitian(2, 3, 6, 6), torch.tensor([0.3, 1.0, 4.0])
    found = fermi_function(hamiltonian, beta, num_filled)
    levels = torch.linalg.eigvalsh(hamiltonian)
    middle = 0.5 * (levels[..., num_filled - 1] + levels[..., num_filled])
    for w, k in itertools.product(range(2), range(3)):
        exponent = beta[k] * (hamiltonian[w, k] - middle[w, k] * torch.eye(6)) + OPEN_SHELL * torch.eye(6)
        expected = torch.from_numpy(linalg.funm(exponent.numpy(), lambda z: 1.0 / (1.0 + np.exp(z))))
        torch.testing.assert_close(found[w, k], expected, rtol=1e-9, atol=1e-10)


def test_fermi_function_of_every_matrix_alone():
    hamiltonian, beta = _hermitian(2, 1, 3, 5, 5), torch.tensor([0.3, 1.0, 4.0])
    together = fermi_function(hamiltonian, beta, 2)
    for w, k in itertools.product(range(2), range(3)):
        alone = fermi_function(hamiltonian[w, 0, k : k + 1], beta[k : k + 1], 2)[0]
        torch.testing.assert_close(together[w, 0, k], alone, rtol=1e-12, atol=1e-13)


def test_cold_electrons_fill_the_lowest_levels():
    hamiltonian = _with_levels([-2.0, -1.0, -1.0, 0.5, 0.5, 3.0])
    filled = fermi_function(hamiltonian.unsqueeze(0), torch.tensor([1e6]), 3)[0]
    torch.testing.assert_close(filled @ filled, filled, rtol=0, atol=1e-12)
    torch.testing.assert_close(filled, filled.mH, rtol=0, atol=1e-14)
    assert abs(filled.diagonal().sum().real.item() - 3.0) < 1e-12
    levels = torch.linalg.eigvalsh(filled @ hamiltonian @ filled)
    torch.testing.assert_close(levels, torch.tensor([-2.0, -1.0, -1.0, 0.0, 0.0, 0.0]), rtol=0, atol=1e-12)


def test_all_levels_filled_is_the_identity():
    torch.testing.assert_close(fermi_function(_hermitian(2, 1, 3, 3), torch.ones(1), 3)[1, 0].real, torch.eye(3))


DEGENERATE = {
    "apart": [-2.0, -1.0, -0.4, 0.5, 1.1],
    "filled levels meet": [-1.0, -1.0, -0.4, 0.5, 1.1],
    "empty levels meet": [-2.0, -1.0, -0.4, 0.8, 1.1, 1.1],
    "both": [-1.5, -1.5, -1.0, 0.8, 1.1, 1.1, 1.1],
}


@pytest.mark.parametrize("beta", [0.7, 12.0])
@pytest.mark.parametrize("case", DEGENERATE)
def test_gradients_where_levels_meet(case, beta):
    """Against finite differences, for any Hermitian change of the matrix.

    The last filled and the first empty level stand alone: where one of them splits, mu has a kink.
    """
    hamiltonian = _with_levels(DEGENERATE[case]).unsqueeze(0)

    def function(real, imag, strength):
        matrix = torch.complex(real, imag)
        return torch.view_as_real(fermi_function(0.5 * (matrix + matrix.mH), strength, 3))

    inputs = [part.clone().requires_grad_() for part in (hamiltonian.real, hamiltonian.imag, torch.tensor([beta]))]
    assert torch.autograd.gradcheck(function, inputs, atol=1e-6)


def test_gradients_where_the_edges_of_the_gap_are_multiplets():
    """Changes that keep the symmetry, as all parameters do on a lattice: mu follows the multiplet."""
    hamiltonian, shift = (_with_levels(levels) for levels in ([-1.0, -0.5, -0.5, 0.8, 0.8], [0.3, 0.1, 0.1, 0.7, 0.7]))

    def function(scale, strength, beta):
        return torch.view_as_real(fermi_function((scale * hamiltonian + strength * shift).unsqueeze(0), beta, 3))

    inputs = [torch.tensor(value).requires_grad_() for value in (1.2, 0.4, [3.0])]
    assert torch.autograd.gradcheck(function, inputs, atol=1e-6)
    open_shell = _with_levels([-1.0, -0.5, -0.5, -0.5, 0.8])
    hamiltonian, shift = open_shell, open_shell @ open_shell
    assert torch.autograd.gradcheck(function, inputs, atol=1e-6)


def test_no_overflow_at_any_temperature():
    for beta in (1e-8, 1e8):
        strength = torch.tensor([beta], requires_grad=True)
        hamiltonian = (1e3 * _hermitian(1, 6, 6)).requires_grad_()
        filled = fermi_function(hamiltonian, strength, 3)
        filled.abs().sum().backward()
        for tensor in (filled, strength.grad, hamiltonian.grad):
            assert torch.isfinite(torch.view_as_real(tensor) if tensor.is_complex() else tensor).all()


# --- the envelope as a mean-field state -----------------------------------------------------------------------------

RATIO = torch.tensor(1.0 / 0.9, dtype=torch.float64)
"""rs / rs_0 of all envelopes here."""


def _envelope(cell, num_determinants, protons="sampled"):
    return PlaneWaveEnvelope(System(cell.num_atoms, protons=protons), cell.rs / RATIO.item(), num_determinants)


def _slater_matrix(cell, protons, twist, integers, kappa_squared, positions):
    """Orbitals n at electrons i from a Hamiltonian written down element by element."""
    unit = 2.0 * math.pi / cell.length
    momenta = unit * np.asarray(integers, dtype=float)
    hamiltonian = np.zeros((len(momenta), len(momenta)), dtype=complex)
    for i, j in itertools.product(range(len(momenta)), repeat=2):
        if i == j:
            hamiltonian[i, i] = 0.5 * np.sum((momenta[i] + unit * np.asarray(twist)) ** 2)
        else:
            q = momenta[i] - momenta[j]
            structure = sum(np.exp(-1j * q @ x) for x in protons.numpy())
            hamiltonian[i, j] = -4.0 * math.pi / cell.volume * structure / (q @ q + kappa_squared)
    levels, vectors = np.linalg.eigh(hamiltonian)
    num_filled = cell.num_atoms // 2
    assert levels[num_filled] - levels[num_filled - 1] > 0.02, "choose protons with a gap"
    waves = np.exp(1j * positions.numpy() @ (momenta + unit * np.asarray(twist)).T)
    return waves @ vectors[:, :num_filled]


@pytest.mark.parametrize("twist", [GAMMA, GENERAL_TWIST], ids=["gamma", "twist"])
@pytest.mark.parametrize("num_atoms", [2, 6])
def test_a_cold_envelope_is_the_product_of_two_slater_determinants(num_atoms, twist):
    """det Phi = const(x) det phi_n(r_up) det phi_n(r_down), with the N/2 lowest orbitals of h for both spins."""
    cell = PeriodicCell(num_atoms, 1.31)
    protons, electrons = random_configurations(cell, 1, 5, seed=1)
    _assert_slater_determinants(_envelope(cell, 1), cell, protons, electrons, twist)


@pytest.mark.parametrize(("name", "num_atoms"), [("sc", 8), ("bcc", 16), ("fcc", 32)])
def test_so_is_that_of_a_crystal_at_a_twist(name, num_atoms):
    """Its structure factor vanishes between reciprocal lattice vectors, and pairs none of the filled orbitals."""
    cell = PeriodicCell(num_atoms, 1.31)
    protons = make_structure(name, cell, 1, torch.Generator().manual_seed(0))[:, None] + 0.3
    _, electrons = random_configurations(cell, 1, 5, seed=1)
    _assert_slater_determinants(_envelope(cell, 1, protons="fixed"), cell, protons, electrons, GENERAL_TWIST)


def _assert_slater_determinants(envelope, cell, protons, electrons, twist):
    with torch.no_grad():
        envelope.log_beta.fill_(math.log(1e5))
        half = cell.num_atoms // 2
        up, down = electrons[..., :half, :], electrons[..., half:, :]
        states = states_at(cell, twist=twist)
        found = torch.linalg.det(envelope(up, down, protons, states, RATIO))[0, :, 0].numpy()
    kappa_squared = math.exp(envelope.log_screening.item()) / RATIO.item()
    slater = partial(_slater_matrix, cell, protons[0, 0], twist, envelope.integers, kappa_squared)
    both = zip(up[0], down[0], strict=True)
    expected = [np.linalg.det(slater(z_up)) * np.linalg.det(slater(z_down)) for z_up, z_down in both]
    ratios = found / np.array(expected)
    error = np.abs(ratios / ratios[0] - 1.0).max()
    assert error < 1e-8, f"largest error {error:.1e}"


def test_without_protons_it_is_the_fermi_sea():
    cell = PeriodicCell(14, 1.31)  # 7 pairs: the closed shells 1 + 6
    envelope = _envelope(cell, 1)
    with torch.no_grad():
        envelope.log_screening.fill_(60.0)
        envelope.log_proton_pairing.fill_(-60.0)
        envelope.log_beta.fill_(math.log(1e4))
        pairing = envelope.pairing(torch.rand(14, 3), states_at(cell), RATIO)[0]
    expected = envelope.opposite.clone()
    expected[7:], expected[:, 7:] = 0.0, 0.0
    torch.testing.assert_close(pairing, expected.to(pairing.dtype), rtol=0, atol=1e-10)


def test_real_at_gamma_and_symmetric_in_the_spins():
    cell = PeriodicCell(6, 1.31)
    envelope = trained_like(_envelope(cell, 2), size=0.05)
    protons, electrons = random_configurations(cell, 2, 3)
    up, down = electrons[..., :3, :], electrons[..., 3:, :]
    states = states_at(cell, twist=GENERAL_TWIST)
    swapped = envelope(down, up, protons, states, RATIO).transpose(-2, -1)
    torch.testing.assert_close(envelope(up, down, protons, states, RATIO), swapped)
    with torch.no_grad():
        envelope.log_occupation.zero_()
        envelope.occupation_power.zero_()
        amplitude = envelope(up, down, protons, states_at(cell), RATIO)
    assert amplitude.imag.abs().max() < 1e-12 * amplitude.abs().max()


LATTICES = [("bcc", 16, GAMMA), ("sc", 8, GAMMA), ("bcc", 2, GAMMA), ("fcc", 4, GAMMA), ("sc", 8, (0.5, 0.5, 0.5))]
TWISTS = [GAMMA, GENERAL_TWIST, (0.375, 0.375, 0.375)]
FLUIDS = [(name, 16, twist) for name in ("random", "molecular") for twist in TWISTS]


@pytest.mark.parametrize(("name", "num_atoms", "twist"), LATTICES + FLUIDS)
def test_the_determinant_is_regular(name, num_atoms, twist):
    """Open shells too: bcc N = 16 at Gamma has 8 pairs where shells close at 7 and 19."""
    cell = PeriodicCell(num_atoms, 1.31)
    protons = make_structure(name, cell, 1, torch.Generator().manual_seed(0))[:, None]
    _, electrons = random_configurations(cell, 1, 50, seed=2)
    half = num_atoms // 2
    envelope = _envelope(cell, 2)
    states = states_at(cell, twist=twist)
    with torch.no_grad():
        matrix = envelope(electrons[..., :half, :], electrons[..., half:, :], protons, states, RATIO)
    values = torch.linalg.svdvals(matrix)
    condition = (values[..., 0] / values[..., -1]).flatten()
    assert torch.isfinite(torch.linalg.slogdet(matrix)[1]).all()
    assert condition.median() < 1e4, (condition.median(), condition.max())
    assert condition.max() < 1e8, (condition.median(), condition.max())


@pytest.mark.parametrize(("name", "num_atoms"), [("bcc", 16), ("sc", 8)])
def test_gradients_of_the_parameters_on_a_lattice(name, num_atoms):
    """Levels of a lattice come in multiplets; no gradient may notice."""
    cell = PeriodicCell(num_atoms, 1.31)
    protons = make_structure(name, cell, 1, torch.Generator().manual_seed(0))[0]
    envelope = _envelope(cell, 2)
    names = [key for key, _ in envelope.named_parameters()]

    def pairing(*values):
        parameters = {f"envelope.{key}": value for key, value in zip(names, values, strict=True)}
        return torch.view_as_real(torch.func.functional_call(_Pairing(envelope, cell), parameters, protons))

    values = [value.detach().clone().requires_grad_() for value in envelope.parameters()]
    assert torch.autograd.gradcheck(pairing, values, fast_mode=True, atol=1e-5)


class _Pairing(torch.nn.Module):
    def __init__(self, envelope, cell):
        super().__init__()
        self.envelope, self.states = envelope, states_at(cell)

    def forward(self, protons):
        return self.envelope.pairing(protons, self.states, RATIO)


# --- bad input ------------------------------------------------------------------------------------------------------


def _one_line(error):
    assert "\n" not in str(error.value)


def test_odd_numbers_of_atoms_are_refused():
    with pytest.raises(ValueError, match=r"^num_atoms = 3 must be even") as error:
        GeminalWavefunction(System(3), StatePoint(1.31))
    _one_line(error)


def test_polarised_electrons_are_refused():
    with pytest.raises(ValueError, match=r"^num_up = 3 must be 1, the number of electrons down") as error:
        GeminalWavefunction(System(4, num_up=3), StatePoint(1.31))
    _one_line(error)


@pytest.mark.parametrize("name", ["num_determinants", "num_layers", "single_width", "pair_width"])
def test_sizes_below_one_are_refused(name):
    with pytest.raises(ValueError, match=rf"^{name} = 0 must be at least 1") as error:
        GeminalWavefunction(System(4), StatePoint(1.31), **{name: 0})
    _one_line(error)


@pytest.mark.parametrize("count", [0, -1, 3])
def test_too_few_plane_waves_are_refused(count):
    with pytest.raises(ValueError, match=rf"^num_plane_waves = {count} must be at least 8") as error:
        GeminalWavefunction(System(16), StatePoint(1.31), num_plane_waves=count)
    _one_line(error)


# --- signs of the pairs in an open shell ----------------------------------------------------------------------------


def test_pairs_of_an_open_shell_with_the_symmetry_of_a_d_wave():
    """bcc, N = 16: one pair in the twelve plane waves of |n|^2 = 2, which the protons leave degenerate."""
    cell = PeriodicCell(16, 1.31)
    protons = make_structure("bcc", cell, 1, torch.Generator().manual_seed(0))
    equal, signed = (
        PlaneWaveEnvelope(System(16), 1.31, 1, open_shell=kind)
        .pairing(protons, states_at(cell, 1), torch.ones(1))[0, 0]
        .detach()
        for kind in "sd"
    )
    integers = cell.plane_waves(26)
    shell = integers.square().sum(-1) == 2
    inside = shell.unsqueeze(-1) & shell
    sign = (integers[:, 0] ** 2 - integers[:, 1] ** 2).to(equal.dtype)
    torch.testing.assert_close(signed[~inside], equal[~inside], rtol=0, atol=0)
    torch.testing.assert_close(signed.diagonal()[shell], (sign * equal.diagonal())[shell], rtol=1e-9, atol=0)
    opposite = (integers.unsqueeze(1) == -integers).all(-1) & inside
    assert abs(equal[opposite].sum()) > 1e-3
    assert abs(signed[opposite].sum()) < 1e-9
    torch.testing.assert_close(signed, signed.T, rtol=0, atol=1e-12)


def test_closed_shells_have_no_signs():
    waves = PeriodicCell(14, 1.31).plane_waves(24).double()
    torch.testing.assert_close(open_shell_weights(waves, 7), torch.ones(27, 27))


def test_open_shells_that_are_not_possible():
    with pytest.raises(ValueError, match=r"^open_shell = p is unknown; choose s or d"):
        GeminalWavefunction(System(16), StatePoint(1.31), open_shell="p")
    with pytest.raises(ValueError, match=r"^open_shell = d leaves 4 of the 6 plane waves"):
        GeminalWavefunction(System(12), StatePoint(1.31), open_shell="d")
