"""Accept/reject against exact distributions, with all proposal rules."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import iv

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.sampling.metropolis import metropolis
from lightning_vfe.sampling.proposals import GaussianProposal, HamiltonianProposal, LangevinProposal
from lightning_vfe.sampling.random import WalkerRandom

RULES = [GaussianProposal(), LangevinProposal(), HamiltonianProposal(3)]
NAMES = ["gaussian", "langevin", "hamiltonian"]
CELL = PeriodicCell(num_atoms=1, rs=2.0)
WAVE = 2 * math.pi / CELL.length


def run(log_prob, positions, rule, width, num_steps, wrap=CELL.wrap, seed=0):
    random = WalkerRandom(range(4), seed)
    state = rule.evaluate(log_prob, positions)
    return metropolis(log_prob, state, rule, torch.tensor(width), num_steps, random, wrap)


def check_mean(samples, exact, what):
    """samples (sweeps, chains): chains are independent, so the error is the one of the chain means."""
    means = samples.mean(dim=0)
    error = means.std() / means.numel() ** 0.5
    assert abs(means.mean() - exact) < 4 * error, f"{what}: {means.mean():.5f} +- {error:.5f} instead of {exact:.5f}"
    return means.mean(), error


def collect(log_prob, positions, rule, width, observables, num_samples, gap=3, wrap=CELL.wrap, burn_in=60):
    """Series of each observable, every `gap` steps.  # (num_samples, chains)"""
    random = WalkerRandom(range(4), 1)
    state = rule.evaluate(log_prob, positions)
    width = torch.tensor(width)
    state, _ = metropolis(log_prob, state, rule, width, burn_in, random, wrap)
    series = []
    for _ in range(num_samples):
        state, _ = metropolis(log_prob, state, rule, width, gap, random, wrap)
        series.append([observable(state.positions) for observable in observables])
    return [torch.stack(list(values)) for values in zip(*series, strict=True)]


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_periodic_well_centred_on_the_boundary_of_the_cell(rule):
    """Von Mises: p = exp(kappa cos k x) / (2 pi I_0), <cos> = I_1 / I_0, <cos 2kx> = I_2 / I_0."""
    kappa = 2.0

    def log_prob(positions):
        return kappa * torch.cos(WAVE * positions).sum(dim=(-1, -2))

    positions = WalkerRandom([0], 5).uniform((240, 2, 3)) * CELL.length
    observables = [lambda x, n=n: torch.cos(n * WAVE * x).mean(dim=(-1, -2)) for n in (1, 2)]
    first, second = collect(log_prob, positions, rule, 0.7, observables, num_samples=30)
    check_mean(first, iv(1, kappa) / iv(0, kappa), "<cos>")
    check_mean(second, iv(2, kappa) / iv(0, kappa), "<cos 2>")


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_coupled_harmonic_wells(rule):
    """Two particles, ln p = -x1^2/2a - x2^2/2a + c x1.x2: covariance matrix inverse of [[1/a, -c], [-c, 1/a]]."""
    spread, coupling = 0.09, 7.0
    covariance = np.linalg.inv([[1 / spread, -coupling], [-coupling, 1 / spread]])

    def log_prob(positions):
        x = CELL.minimum_image(positions)
        return -(x**2).sum(dim=(-1, -2)) / (2 * spread) + coupling * (x[..., 0, :] * x[..., 1, :]).sum(dim=-1)

    def product(i, j):
        return lambda x: (CELL.minimum_image(x)[:, i] * CELL.minimum_image(x)[:, j]).mean(dim=-1)

    positions = CELL.wrap(0.3 * WalkerRandom([0], 5).normal((240, 2, 3)))
    same, cross = collect(log_prob, positions, rule, 0.2, [product(0, 0), product(0, 1)], num_samples=40)
    check_mean(same, covariance[0, 0], "<x1.x1>/3")
    check_mean(cross, covariance[0, 1], "<x1.x2>/3")


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_hydrogen_atom_in_a_large_cell(rule):
    """|psi|^2 = exp(-2r): <r> = 3/2, <1/r> = 1, with (W, B) leading dims as electrons have them."""
    cell = PeriodicCell(num_atoms=1, rs=15.0)  # exp(-L) is 3e-11

    def distance(positions):
        return cell.minimum_image(positions).norm(dim=-1)

    def log_prob(positions):
        return -2 * distance(positions).sum(dim=-1)

    positions = cell.wrap(WalkerRandom([0], 5).normal((40, 8, 1, 3)))
    observables = [lambda x: distance(x).flatten(), lambda x: 1 / distance(x).flatten()]
    mean, inverse = collect(log_prob, positions, rule, 0.9, observables, num_samples=120, wrap=cell.wrap)
    check_mean(mean, 1.5, "<r>")
    check_mean(inverse, 1.0, "<1/r>")


def test_langevin_and_gaussian_agree_on_a_density_without_a_formula():
    cell = PeriodicCell(num_atoms=3, rs=1.5)

    def log_prob(positions):
        separation = positions[..., :, None, :] - positions[..., None, :, :]
        off_diagonal = ~torch.eye(3, dtype=torch.bool)
        distance = torch.where(off_diagonal, cell.smooth_distance(separation), 1e3)
        return -1.5 / 2 * (1 / distance).sum(dim=(-1, -2))

    def energy(positions):
        return log_prob(positions)

    positions = WalkerRandom([0], 5).uniform((240, 3, 3)) * cell.length
    results = [
        collect(log_prob, positions, rule, 0.6, [energy], num_samples=30, wrap=cell.wrap)[0].mean(dim=0)
        for rule in RULES
    ]
    difference = results[0].mean() - results[1].mean()
    error = (results[0].var() / 240 + results[1].var() / 240) ** 0.5
    assert abs(difference) < 4 * error, (difference, error)
    assert error < 0.02, (difference, error)


def lopsided(positions):
    """Asymmetric, with a node at x = 0 where the gradient diverges: ln [sin^2(kx/2) (1 + 0.8 sin kx)]."""
    angle = WAVE * positions
    return (torch.log(torch.sin(angle / 2) ** 2) + torch.log(1 + 0.8 * torch.sin(angle))).sum(dim=(-1, -2))


def draw_exactly(count):
    """Independent samples of `lopsided` by inverting its distribution function, from a grid of 2e5 points."""
    edges = torch.linspace(0, CELL.length, 200_001)
    middle = 0.5 * (edges[1:] + edges[:-1])
    mass = torch.exp(lopsided(middle[:, None, None])).cumsum(dim=0)
    uniform = WalkerRandom([0], 9).uniform((count, 1, 3))
    index = torch.searchsorted(mass / mass[-1], uniform)
    return (index + WalkerRandom([0], 10).uniform((count, 1, 3))) * (edges[1] - edges[0])


@pytest.mark.parametrize("width", [0.3, 2.0])
@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_detailed_balance(rule, width):
    """One step from exact independent samples: as many chains go from bin i to j as from j to i, and p is kept."""
    count, bins = 200_000, 8
    before = draw_exactly(count)
    state, accepted = run(lopsided, before, rule, width, num_steps=1)
    assert 0.02 < accepted.double().mean() < 0.98
    labels = [(x[:, 0, 0] / CELL.length * bins).long() for x in (before, state.positions)]
    flux = torch.bincount(labels[0] * bins + labels[1], minlength=bins**2).reshape(bins, bins).double()
    i, j = torch.triu_indices(bins, bins, offset=1)
    both = flux[i, j] + flux[j, i]
    used = both >= 20
    chi_square = ((flux[i, j] - flux[j, i])[used] ** 2 / both[used]).sum().item()
    p_value = stats.chi2.sf(chi_square, int(used.sum()))
    assert used.sum() >= bins - 1, f"chi^2 = {chi_square:.1f} of {int(used.sum())} pairs of bins"
    assert p_value > 1e-5, f"chi^2 = {chi_square:.1f} of {int(used.sum())} pairs of bins"
    # The law after the step, all three components: still the exact one.
    exact = draw_exactly(count)
    for axis in range(3):
        p_value = stats.ks_2samp(exact[:, 0, axis].numpy(), state.positions[:, 0, axis].numpy()).pvalue
        assert p_value > 1e-5, f"axis {axis}: p = {p_value:.1e}"


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_non_finite_proposals_are_rejected_and_stranded_chains_leave(rule):
    half = CELL.length / 2

    def log_prob(positions):
        x = positions[..., 0, 0]
        value = 0.1 * torch.cos(WAVE * x)
        return torch.where(x < half, value, torch.where(x < 1.5 * half, torch.nan, torch.inf))

    positions = 0.5 * half * torch.ones(64, 1, 3)
    state, accepted = run(log_prob, positions, rule, 1.0, num_steps=50)
    assert torch.isfinite(state.log_prob).all()
    assert (state.positions[:, 0, 0] < half).all()
    assert (accepted > 0).all()
    assert (accepted < 50).all()
    for bad in (1.2 * half, 1.8 * half):  # starts at nan and at +inf
        state, _ = run(log_prob, bad * torch.ones(64, 1, 3), rule, 1.0, num_steps=100)
        assert torch.isfinite(state.log_prob).all()
        assert (state.positions[:, 0, 0] < half).all()


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_state_is_consistent_and_each_step_costs_one_evaluation(rule):
    calls = []

    def log_prob(positions):
        calls.append(positions.shape)
        return torch.cos(WAVE * positions).sum(dim=(-1, -2))

    start = WalkerRandom([0], 5).uniform((8, 5, 2, 3)) * CELL.length
    state, accepted = run(log_prob, start, rule, 1.5, num_steps=10)
    assert len(calls) == 1 + 10 * getattr(rule, "num_steps", 1)
    assert accepted.shape == state.log_prob.shape == (8, 5)
    assert accepted.dtype == torch.int64
    assert state.positions.min() >= 0
    assert state.positions.max() < CELL.length
    torch.testing.assert_close(CELL.wrap(start + state.displacement), state.positions)
    assert state.displacement.abs().max() > CELL.length / 2, "some particle must have crossed the cell"
    fresh = rule.evaluate(log_prob, state.positions)
    torch.testing.assert_close(fresh.log_prob, state.log_prob)
    if state.gradient is not None:
        torch.testing.assert_close(fresh.gradient, state.gradient)
    assert not state.positions.requires_grad
    assert not state.log_prob.requires_grad
