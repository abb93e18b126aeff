"""The Fermi function by batched products: values and derivatives against LAPACK's eigenbasis and finite differences."""

import math
from functools import partial

import pytest
import torch

from lightning_vfe.models.wavefunction import orbitals
from lightning_vfe.models.wavefunction.fermi import fermi_function
from lightning_vfe.models.wavefunction.scores import wavefunction_scores
from lightning_vfe.physics.cell import PeriodicCell
from tests.helpers.matrices import WAITING, Dispatched, hermitian, physical, shells, with_levels
from tests.helpers.states import states_at
from tests.helpers.wavefunctions import GAMMA, GENERAL_TWIST, make_wavefunction, random_configurations

TWISTS = {"Gamma": GAMMA, "a twist": GENERAL_TWIST}
NUM_ATOMS = [2, 4, 8, 14, 16]


def _both(hamiltonian, beta, num_filled):
    return [fermi_function(hamiltonian, beta, num_filled, batched=batched) for batched in (False, True)]


def _gradients(hamiltonian, beta, num_filled, batched):
    """Of a fixed linear function of the result, with respect to h and beta."""
    inputs = hamiltonian.clone().requires_grad_(), beta.clone().requires_grad_()
    result = fermi_function(*inputs, num_filled, batched=batched)
    weights = torch.randn(2, *result.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    torch.sum(torch.complex(*weights).to(result.dtype) * result).real.backward()
    # h is Hermitian: the rest of its gradient has no meaning.
    return 0.5 * (inputs[0].grad + inputs[0].grad.mH), inputs[1].grad


def _compare(hamiltonian, beta, num_filled, tolerance=1e-12):
    """Errors of the gradients are relative to the largest element; that of beta may be exponentially small."""
    expected, found = _both(hamiltonian, beta, num_filled)
    errors = [(found - expected).abs().max()]
    for a, b in zip(*(_gradients(hamiltonian, beta, num_filled, batched) for batched in (False, True)), strict=True):
        errors.append((a - b).abs().max() / a.abs().max().clamp(min=1e-2))
    assert all(error < tolerance for error in errors), [f"{error:.1e}" for error in errors]


@pytest.mark.parametrize("twist", TWISTS)
@pytest.mark.parametrize("num_atoms", NUM_ATOMS)
def test_of_random_protons_as_with_lapack(num_atoms, twist):
    hamiltonian = physical(num_atoms, TWISTS[twist])
    for beta in (5.0, 60.0):
        _compare(hamiltonian, torch.tensor([beta, 0.5 * beta]), num_atoms // 2)


@pytest.mark.parametrize("order", [2, 5, 19, 33, 64])
def test_of_random_matrices_as_with_lapack(order):
    _compare(hermitian(3, 2, order, order), torch.tensor([0.3, 4.0]), order // 2)


@pytest.mark.parametrize("spread", [0.0, 1e-15, 1e-13, 1e-11, 1e-9, 1e-6, 1e-3])
def test_of_nearly_degenerate_shells_as_with_lapack(spread):
    """The gap lies between shells, whose single levels no result may show."""
    levels = shells(spread)
    # The edges of the gap stand alone; where one splits, mu has a kink.
    levels[:, 6] += 0.1
    levels[:, 7] -= 0.1
    _compare(with_levels(levels).unsqueeze(1), torch.tensor([20.0]), 7)


def test_of_open_shells_as_with_lapack():
    expected, found = _both(with_levels(shells(0.0)).unsqueeze(1), torch.tensor([20.0]), 12)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    weight = 1.0 / (1.0 + math.exp(2.0))
    assert abs(found.diagonal(dim1=-2, dim2=-1).real.sum(-1) - (7.0 + 12.0 * weight)).max() < 1e-4


def test_in_single_precision():
    hamiltonian, beta = physical(16, GENERAL_TWIST), torch.tensor([30.0, 10.0])
    single = hamiltonian.to(torch.complex64), beta.float()
    exact, found = (fermi_function(*inputs, 8, batched=True) for inputs in ((hamiltonian, beta), single))
    torch.testing.assert_close(found, exact.to(torch.complex64), rtol=0, atol=2e-5)
    for a, b in zip(_gradients(hamiltonian, beta, 8, True), _gradients(*single, 8, True), strict=True):
        error = (a - b).abs().max() / a.abs().max()
        assert error < 2e-4, f"{error:.1e}"


@pytest.mark.parametrize("levels", [[-1.5, -1.5, -1.0, 0.8, 1.1, 1.1, 1.1], [-2.0, -1.0, -0.4, 0.5, 1.1]])
def test_gradients_against_finite_differences(levels):
    hamiltonian = with_levels(torch.tensor(levels)).unsqueeze(0)

    def function(real, imag, beta):
        matrix = torch.complex(real, imag)
        return torch.view_as_real(fermi_function(0.5 * (matrix + matrix.mH), beta, 3, batched=True))

    for beta in (0.7, 12.0):
        parts = hamiltonian.real, hamiltonian.imag, torch.tensor([beta])
        assert torch.autograd.gradcheck(function, [part.clone().requires_grad_() for part in parts], atol=1e-6)


def test_gradients_of_a_doublet_that_is_half_filled():
    """Last filled and first empty level meet; mu, their mean, has no kink."""
    hamiltonian = with_levels(torch.tensor([-2.0, -1.0, 0.3, 0.3, 1.1, 2.0])).unsqueeze(0)
    _compare(hamiltonian, torch.tensor([3.0]), 3)


@pytest.mark.parametrize("batched", [False, True])
def test_every_walker_has_its_beta(batched):
    hamiltonian, beta = physical(4, GENERAL_TWIST), torch.rand(4, 2) * 20.0 + 5.0
    together = fermi_function(hamiltonian, beta, 2, batched=batched)
    for i, alone in enumerate(fermi_function(h, b, 2, batched=batched) for h, b in zip(hamiltonian, beta, strict=True)):
        torch.testing.assert_close(together[i], alone, rtol=0, atol=1e-12)
    _compare(hamiltonian, beta, 2)
    one = fermi_function(hamiltonian[0], beta, 2, batched=batched)
    torch.testing.assert_close(one[0], together[0], rtol=0, atol=1e-12)
    assert fermi_function(hamiltonian[0], beta, hamiltonian.shape[-1]).shape == one.shape


@pytest.mark.parametrize("batched", [False, True])
def test_pull_backs_under_two_vmaps(batched):
    hamiltonian, beta = physical(8, GENERAL_TWIST), torch.tensor([30.0, 10.0])
    weights = torch.randn(3, *hamiltonian.shape, 2)

    def pulled(h, strength, weight):
        def parts(h, strength):
            return torch.view_as_real(fermi_function(h, strength, 4, batched=batched))

        return torch.func.vjp(parts, h, strength)[1](weight)

    found = torch.func.vmap(torch.func.vmap(pulled, in_dims=(0, None, 0)), in_dims=(None, None, 0))
    found = found(hamiltonian, beta, weights)
    for i in range(3):
        for w in range(len(hamiltonian)):
            inputs = hamiltonian[w].clone().requires_grad_(), beta.clone().requires_grad_()
            value = (torch.view_as_real(fermi_function(*inputs, 4, batched=False)) * weights[i, w]).sum()
            for a, b in zip(torch.autograd.grad(value, inputs), (found[0][i, w], found[1][i, w]), strict=True):
                torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("batched", [False, True])
def test_forward_derivatives(batched):
    hamiltonian, change = hermitian(2, 9, 9), hermitian(2, 9, 9, seed=1)
    function = partial(fermi_function, beta=torch.tensor([1.0, 3.0]), num_filled=4, batched=batched)
    found = torch.func.jvp(function, (hamiltonian,), (change,))[1]
    difference = function(hamiltonian + 1e-5 * change) - function(hamiltonian - 1e-5 * change)
    torch.testing.assert_close(found, difference / 2e-5, rtol=1e-7, atol=1e-8)


def test_scores_of_the_wavefunction(monkeypatch):
    cell = PeriodicCell(4, 1.31)
    wavefunction = make_wavefunction(cell)
    protons, electrons = random_configurations(cell, 2, 3)
    states = states_at(cell, twist=[GAMMA, GENERAL_TWIST])
    scores = partial(wavefunction_scores, wavefunction, protons[:, 0], electrons, states)
    expected = scores()
    monkeypatch.setattr(orbitals, "fermi_function", partial(fermi_function, batched=True))
    torch.testing.assert_close(scores(), expected, rtol=1e-9, atol=1e-9)


def test_operations_do_not_grow_with_the_batch_and_none_waits():
    counts = []
    for batch in (2, 7):
        inputs = hermitian(batch, 2, 9, 9).requires_grad_(), torch.tensor([1.0, 2.0]).requires_grad_()
        with Dispatched() as dispatched:
            fermi_function(*inputs, 4, batched=True).abs().sum().backward()
        counts.append(dispatched.names)
    assert counts[0] == counts[1]
    assert not set(WAITING) & set(counts[0]), counts[0]
    assert not any("eigh" in name for name in counts[0]), counts[0]


def test_nothing_depends_on_values():
    """A meta tensor has none: whatever asks for one fails."""
    hamiltonian = torch.empty(4, 2, 27, 27, dtype=torch.complex128, device="meta").requires_grad_()
    fermi_function(hamiltonian, torch.empty(2, device="meta"), 5).abs().sum().backward()
    assert hamiltonian.grad.shape == hamiltonian.shape
