"""The gradient of the wavefunction against the derivatives of the energy itself.

All samples are images of a uniform grid: an average of a periodic analytic function over such a grid converges
exponentially, so that the estimator has neither noise nor bias here, and is compared with F to many digits.
"""

import math

import pytest
import torch

from lightning_vfe.physics.kinetic import kinetic_energy
from lightning_vfe.training.variational.objective import Groups, wavefunction_loss
from tests.helpers.derivatives import central_differences
from tests.helpers.processes import one_process, run_processes

NO_CLIPPING = 1e9
TWO_PI = 2.0 * math.pi

NUM_WAVES = 5
LENGTH = 2.0
INTEGERS = torch.arange(NUM_WAVES) - 2
POTENTIALS = [(0.7, 0.3), (-0.4, 0.5), (0.2, -0.6)]  # of different protons


def momenta(twist):
    return TWO_PI / LENGTH * (INTEGERS + twist)


def amplitudes(parameters):
    return torch.complex(parameters[:NUM_WAVES], parameters[NUM_WAVES:])


def psi(x, parameters, twist):
    return (amplitudes(parameters) * torch.exp(1j * x.unsqueeze(-1) * momenta(twist))).sum(-1)


def log_psi(electrons, parameters, twist):
    """One electron in sum_k c_k exp[i (k + twist) x], as a function of positions (..., 1, 3)."""
    phase = electrons[..., 0, 0].unsqueeze(-1) * momenta(twist)
    c = amplitudes(parameters)
    return torch.log((torch.complex(torch.cos(phase), torch.sin(phase)) * c).sum(-1))


def potential(x, protons):
    first, second = POTENTIALS[protons]
    return first * torch.cos(TWO_PI * x / LENGTH) + second * torch.sin(2.0 * TWO_PI * x / LENGTH)


def rayleigh_quotient(parameters, twist, protons):
    """<psi|H|psi> / <psi|psi> from the matrix of H in the plane waves."""
    first, second = POTENTIALS[protons]
    c = amplitudes(parameters)
    difference = INTEGERS.unsqueeze(1) - INTEGERS
    hamiltonian = torch.diag(0.5 * momenta(twist).square()).to(c.dtype)
    hamiltonian = hamiltonian + 0.5 * first * (difference.abs() == 1)
    hamiltonian = hamiltonian - 0.5j * second * ((difference == 2).to(c.dtype) - (difference == -2).to(c.dtype))
    return (c.conj() @ hamiltonian @ c).real / (c.conj() @ c).real


def exact_samples(parameters, twist, num):
    """Points at equal steps of the cumulative distribution of |psi|^2: their plain mean is the mean over |psi|^2."""
    c = amplitudes(parameters)
    overlaps = c.unsqueeze(1) * c.conj()
    difference = (INTEGERS.unsqueeze(1) - INTEGERS).to(torch.float64)
    wavevectors = (TWO_PI / LENGTH * difference).flatten()
    weights = overlaps.flatten() / overlaps.diagonal().sum()
    moving = wavevectors != 0

    def cumulative(x):
        waves = torch.exp(1j * x.unsqueeze(-1) * wavevectors[moving])
        return x / LENGTH + ((waves - 1.0) * (weights / (1j * wavevectors))[moving] / LENGTH).sum(-1).real

    def density(x):
        return (weights * torch.exp(1j * x.unsqueeze(-1) * wavevectors)).sum(-1).real / LENGTH

    target = (torch.arange(num) + 0.5) / num
    low, high = torch.zeros(num), torch.full((num,), LENGTH)
    for _ in range(25):
        middle = 0.5 * (low + high)
        below = cumulative(middle) < target
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    x = 0.5 * (low + high)
    for _ in range(4):
        x = x - (cumulative(x) - target) / density(x)
    return x


PSI_PARAMETERS = [0.2, 0.3, 1.4, -0.25, 0.1, -0.1, 0.15, 0.3, 0.2, -0.2]
GAMMA, TWIST = 0.0, 0.21


def electron_samples(parameters, twist, num=400):
    """Positions (num, 1, 3) of the one electron."""
    return torch.stack([exact_samples(parameters, twist, num), torch.zeros(num), torch.zeros(num)], -1).unsqueeze(-2)


def total_energy(electrons, parameters, twist, protons):
    kinetic = kinetic_energy(lambda r: log_psi(r, parameters, twist), electrons)
    return kinetic + potential(electrons[..., 0, 0], protons)


def test_samples_integrate_exactly():
    parameters = torch.tensor(PSI_PARAMETERS)
    for twist in (GAMMA, TWIST):
        energy = total_energy(electron_samples(parameters, twist), parameters, twist, 0)
        expected = rayleigh_quotient(parameters, twist, 0).to(energy.dtype)
        torch.testing.assert_close(energy.mean(), expected, rtol=0, atol=1e-11)
        assert energy.imag.abs().max() > 0.3, "the imaginary part must matter"


def walker_batch(same_protons):
    """Electrons (W, B, 1, 3), twists and potentials of W proton walkers."""
    parameters = torch.tensor(PSI_PARAMETERS)
    if same_protons:
        # Two twists; each one's points are dealt alternately to two walkers.
        dealt = [electron_samples(parameters, twist) for twist in (GAMMA, TWIST)]
        electrons = torch.stack([dealt[0][::2], dealt[1][::2], dealt[0][1::2], dealt[1][1::2]])
        return electrons, [GAMMA, TWIST, GAMMA, TWIST], [0, 0, 0, 0]
    twists = [TWIST, GAMMA, TWIST]
    return torch.stack([electron_samples(parameters, twist) for twist in twists]), twists, [0, 1, 2]


def batch_values(same_protons, parameters):
    """ln psi with its gradient and E_loc, both (W, B), and the number of each walker's twist."""
    electrons, twists, protons = walker_batch(same_protons)
    logs = torch.stack([log_psi(r, parameters, k) for r, k in zip(electrons, twists, strict=True)])
    detached = parameters.detach()
    energies = [total_energy(r, detached, k, x) for r, k, x in zip(electrons, twists, protons, strict=True)]
    return logs, torch.stack(energies), torch.tensor([0, 1, 0, 1]) if same_protons else None


def mean_energy(parameters, same_protons):
    _, twists, protons = walker_batch(same_protons)
    quotients = [rayleigh_quotient(parameters, k, x) for k, x in zip(twists, protons, strict=True)]
    return torch.stack(quotients).mean()


def loss_of(logs, energies, clip_width, gather=one_process, twist=None):
    """Energies of all walkers are clipped together; walkers of the same protons have one mean for each twist."""
    together = Groups.one(len(logs), energies)
    same = None if twist is None else Groups(twist, 2, torch.ones(len(twist)))
    return wavefunction_loss(logs, energies, clip_width, gather, together, same)


def wavefunction_gradient(same_protons, clip_width=NO_CLIPPING, gather=one_process, part=slice(None), change=None):
    parameters = torch.tensor(PSI_PARAMETERS, requires_grad=True)
    logs, energies, twist = batch_values(same_protons, parameters)
    if change is not None:
        logs, energies = change(logs, energies, parameters)
    loss = loss_of(logs[part], energies[part], clip_width, gather, None if twist is None else twist[part])
    (gradient,) = torch.autograd.grad(loss, parameters)
    return gradient


@pytest.mark.parametrize("same_protons", [False, True], ids=["own protons", "fixed protons"])
def test_wavefunction_gradient_is_that_of_the_energy(same_protons):
    expected = central_differences(lambda p: mean_energy(p, same_protons), torch.tensor(PSI_PARAMETERS))
    found = wavefunction_gradient(same_protons)
    if not same_protons:
        num = walker_batch(False)[0].shape[1]
        found = found * (num - 1) / num  # exact points have no bias that B / (B - 1) should remove
    assert expected.abs().max() > 0.1
    error = (found - expected).abs().max().item()
    assert error < 1e-9, f"largest error {error:.1e}"
    # A loss of the real parts alone would be another one.
    real_only = wavefunction_gradient(same_protons, change=lambda log, e, _: (log, e.real.to(log.dtype)))
    assert (real_only - expected).abs().max() > 1e-2


def test_few_electrons_with_each_proton_walker_give_an_unbiased_gradient():
    """B = 2: the mean of the walker's own two samples is subtracted, B / (B - 1) makes up for it."""
    parameters = torch.tensor(PSI_PARAMETERS, requires_grad=True)
    electrons = electron_samples(parameters.detach(), TWIST, 100)
    first, second = torch.cartesian_prod(torch.arange(100), torch.arange(100)).T  # all pairs: the exact mean
    pairs = torch.stack([electrons[first], electrons[second]], 1)
    energies = total_energy(pairs, parameters.detach(), TWIST, 0)
    loss = loss_of(log_psi(pairs, parameters, TWIST), energies, NO_CLIPPING)
    (found,) = torch.autograd.grad(loss, parameters)
    expected = central_differences(lambda p: rayleigh_quotient(p, TWIST, 0), parameters.detach())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("clip_width", [NO_CLIPPING, 0.7])
@pytest.mark.parametrize("same_protons", [False, True], ids=["own protons", "fixed protons"])
def test_norm_and_phase_of_psi_have_no_gradient(same_protons, clip_width):
    """Adding a number that depends on the parameters to ln psi changes nothing, clipped or not."""

    def rescale(logs, energies, parameters):
        return logs + torch.complex(parameters.square().sum(), parameters[0] - parameters[3]), energies

    expected = wavefunction_gradient(same_protons, clip_width)
    found = wavefunction_gradient(same_protons, clip_width, change=rescale)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_an_eigenstate_has_no_gradient():
    logs = torch.complex(torch.randn(3, 8), torch.randn(3, 8)).requires_grad_()
    energies = torch.tensor([-1.0, -2.0, -3.0]).unsqueeze(1).expand(3, 8).to(logs.dtype)  # one for each configuration
    (gradient,) = torch.autograd.grad(loss_of(logs, energies, 5.0), logs)
    assert gradient.abs().max() == 0.0


def test_clipping_bounds_gradients_and_leaves_energies():
    logs, energies, _ = batch_values(False, torch.tensor(PSI_PARAMETERS, requires_grad=True))
    before = energies.clone()
    loss_of(logs, energies, 0.1)
    torch.testing.assert_close(energies, before, rtol=0, atol=0)

    def spoil(size):
        def change(logs, energies, _):
            energies = energies.clone()
            energies[0, 3] += size
            return logs, energies

        return change

    plain = wavefunction_gradient(False, 5.0)
    unclipped = wavefunction_gradient(False, NO_CLIPPING, change=spoil(1e6))
    clipped = wavefunction_gradient(False, 5.0, change=spoil(1e6))
    # The outlier drags the width along (a mean over 1200 samples), but counts no more than this width.
    assert (clipped - plain).abs().max() < 0.05 * (unclipped - plain).abs().max()


@pytest.mark.parametrize("clip_width", [NO_CLIPPING, 0.7])
@pytest.mark.parametrize("same_protons", [False, True], ids=["own protons", "fixed protons"])
def test_wavefunction_gradient_on_several_processes(same_protons, clip_width):
    """The mean of the processes' gradients, as distributed training takes it, is that of one process."""
    expected = wavefunction_gradient(same_protons, clip_width)
    parts = [slice(0, 2), slice(2, 4)] if same_protons else [slice(i, i + 1) for i in range(3)]
    gradients = run_processes(
        lambda rank, gather: wavefunction_gradient(same_protons, clip_width, gather, parts[rank]), len(parts)
    )
    torch.testing.assert_close(torch.stack(gradients).mean(0), expected, rtol=0, atol=1e-12)
