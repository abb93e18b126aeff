"""Widths and numbers of moves reach their target, stay bounded, and are frozen when asked."""

import math

import pytest
import torch
from scipy.special import iv
from scipy.stats import kendalltau

from lightning_vfe.physics.state_point import WalkerStates
from lightning_vfe.physics.system import System
from lightning_vfe.sampling.adaptation import adapt_log_width, adapt_num_steps, memory_counts
from lightning_vfe.sampling.nested import NestedSampler
from lightning_vfe.sampling.random import WalkerRandom

SYSTEM, RS = System(num_atoms=2), 3.0
CELL = SYSTEM.cell
STATES = WalkerStates.at(RS, twist=torch.zeros(128, 3))


def proton_log_prob(protons):
    return 4 * torch.cos(2 * math.pi * protons / CELL.length).sum(dim=(-1, -2))


def electron_target(walkers):
    protons = walkers.protons[:, None]
    return lambda electrons: -2 * RS * CELL.smooth_distance(electrons - protons).sum(dim=-1)


def start(sampler):
    random = WalkerRandom(range(2), seed=3)
    protons, stratum = random.uniform((128, 2, 3)) * CELL.length, torch.zeros(128, dtype=torch.int64)
    return sampler.start(protons, STATES, stratum, 4, random)


@pytest.mark.parametrize("rule", ["gaussian", "langevin", "hamiltonian"])
@pytest.mark.parametrize("first_width", [0.003, 3.0])
def test_width_adaptation_reaches_the_target(rule, first_width):
    sampler = NestedSampler(
        SYSTEM,
        rule,
        rule,
        num_proton_steps=4,
        num_electron_steps=4,
        proton_target_acceptance=0.6,
        electron_target_acceptance=0.45,
        initial_proton_width=first_width / RS,
        initial_electron_width=first_width / RS,
    )
    walkers = start(sampler)
    for _ in range(60):
        sampler.step(walkers, proton_log_prob, electron_target, adapt=True)
    widths = {name: width.clone() for name, width in walkers.log_widths.items()}
    reports = [sampler.step(walkers, proton_log_prob, electron_target, adapt=False) for _ in range(30)]
    assert walkers.log_widths == widths, "the widths must be frozen"
    assert set(widths) == {"protons", "electrons"}, "the widths must be frozen"
    assert all(reports[-1][f"{name[:-1]}_width_rs"] == width.exp() for name, width in widths.items())
    protons = torch.stack([report["proton_acceptance"] for report in reports]).mean()
    electrons = torch.stack([report["electron_acceptance"] for report in reports]).mean()
    # The last width fluctuates with the acceptance of one sweep, 512 proton trials: 0.02.
    assert abs(protons - 0.6) < 0.06, (protons, electrons)
    assert abs(electrons - 0.45) < 0.04, (protons, electrons)


def test_flat_density_does_not_blow_the_width_up():
    sampler = NestedSampler(SYSTEM, num_proton_steps=1, num_electron_steps=1)
    walkers = start(sampler)
    for _ in range(40):
        report = sampler.step(
            walkers, lambda x: torch.zeros(128), lambda walkers: lambda r: torch.zeros(128, 4), adapt=True
        )
    assert report["proton_acceptance"] == 1
    for name in ("protons", "electrons"):
        torch.testing.assert_close(walkers.log_widths[name].exp(), torch.tensor(CELL.length / 2))


def test_step_is_bounded():
    change = adapt_log_width(torch.tensor(0.0), torch.tensor(1.0), 0.5, gain=100.0, smallest=-5, largest=5)
    assert change == 0.3
    change = adapt_log_width(torch.tensor(0.0), torch.tensor(0.0), 0.5, gain=0.1, smallest=-5, largest=5)
    assert change == pytest.approx(-0.05)


def test_memory_is_kendalls_rank_correlation():
    generator = torch.Generator().manual_seed(0)
    before = torch.randn(5, 7, generator=generator)
    after = before + torch.randn(5, 7, generator=generator)
    expected = sum(kendalltau(*each).statistic for each in zip(before, after, strict=True)) / 5
    stayed, pairs = memory_counts(before, after)
    assert float(2 * stayed / pairs - 1) == pytest.approx(expected, abs=1e-12)
    stayed, pairs = memory_counts(before, before)
    assert stayed == pairs == 5 * 7 * 6


@pytest.mark.parametrize("first", [30.0, 400.0])
def test_number_of_moves_leaves_a_small_lag(first):
    """Electrons in wells around protons that jump anywhere: an exact density, which the last sweeps must follow."""
    system = System(num_atoms=4)
    sampler = NestedSampler(system, num_proton_steps=1, num_electron_steps="auto")
    random, count = WalkerRandom(range(2), seed=3), 16
    protons, states = random.uniform((count, 4, 3)) * system.cell.length, WalkerStates.at(RS, twist=torch.zeros(16, 3))
    walkers = sampler.start(protons, states, torch.zeros(count, dtype=torch.int64), 8, random)
    walkers.electron_steps, wave, kappa = first, 2 * math.pi / system.cell.length, 2.5

    def flat(protons):
        return torch.zeros(len(protons))

    def wells(walkers):
        protons = walkers.protons[:, None]
        return lambda r: kappa * torch.cos(wave * (r - protons)).sum(dim=(-1, -2))

    for _ in range(40):
        sampler.step(walkers, flat, wells, adapt=True)
    steps = walkers.electron_steps
    reports, cosines = [], []
    for _ in range(20):
        reports.append(sampler.step(walkers, flat, wells, adapt=False))
        cosines.append(torch.cos(wave * (walkers.electrons - walkers.protons[:, None])).mean(dim=(-1, -2, -3)))
    assert walkers.electron_steps == steps, "the number of moves must be frozen"
    assert all(report["electron_steps"] == 4 * round(steps / 4) for report in reports)
    memory, gain = (sum(report[f"electron_{name}"] for report in reports) / 20 for name in ("memory", "gain"))
    lag = gain * torch.sin(0.5 * math.pi * memory) ** 4
    assert 0.02 < lag < 0.1, (lag, gain, memory, steps)
    means = torch.stack(cosines).mean(0)
    pull = (means.mean() - iv(1, kappa) / iv(0, kappa)) / (means.std() / count**0.5)
    assert abs(pull) < 4, f"{pull} standard errors off"


def test_number_of_moves_is_bounded():
    fewest, most = 100.0, 100.0
    for _ in range(100):
        fewest, most = adapt_num_steps(fewest, -1.0, 1.0), adapt_num_steps(most, 1.0, 1.0)
    assert (fewest, most) == (8.0, 1000.0)


def test_number_of_moves_survives_stranded_electrons():
    assert adapt_num_steps(50.0, 0.2, math.nan) == 50.0
    assert adapt_num_steps(50.0, 0.3, math.inf) == adapt_num_steps(50.0, 0.3, -1e9) > 50.0
