"""Coupled electron-ion Monte Carlo on a model with a known answer: noise, twists, symmetry, resume, processes."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.special import iv

from lightning_vfe.physics.state_point import WalkerStates
from lightning_vfe.physics.system import System
from lightning_vfe.sampling import coupled
from lightning_vfe.sampling.coupled import FIELD, CoupledDensity
from lightning_vfe.sampling.nested import NestedSampler
from lightning_vfe.sampling.random import WalkerRandom
from tests.helpers.processes import run_processes

SYSTEM = System(num_atoms=2)
CELL = SYSTEM.cell
WAVE = 2 * math.pi / CELL.length
KAPPA, KELVIN, BINDING = 1.5, 6000.0, 2.0
KT = float(WalkerStates.at(2.0, KELVIN).kT)
TWISTS, WEIGHTS = torch.tensor([[0.0, 0.0, 0.0], [0.25, 0.25, 0.25]]), torch.tensor([0.75, 0.25])
SHIFTS = torch.tensor([0.4, -1.2])
"""Of E at the two twists; their weighted mean is zero."""


def electron_target(walkers):
    """Electrons cling to their protons, each coordinate by a von Mises distribution."""
    protons = walkers.protons[:, None]
    return lambda electrons: BINDING * torch.cos(WAVE * (electrons - protons)).sum(dim=(-1, -2))


def poor(protons):
    """A surrogate that is flatter, and has its maximum elsewhere."""
    return 0.5 * KAPPA * torch.cos(WAVE * protons - 1.0).sum(dim=(-1, -2))


def model(noise: float, with_twists: bool = False) -> CoupledDensity:
    """E(x) = -kT kappa sum cos(W x): <cos> of every coordinate is I_1(kappa) / I_0(kappa).

    E_loc = E(x) + kT noise sum sin(W(r - x)) cos(2 W x): the electrons add noise of mean zero. At the two twists, +s
    and -3s times sum sin(W x) are added, which their weights take away.
    """

    def energies(walkers):
        x, electrons = walkers.protons[:, None], walkers.electrons
        own = -KAPPA * torch.cos(WAVE * x).sum(dim=(-1, -2))
        extra = noise * (torch.sin(WAVE * (electrons - x)) * torch.cos(2 * WAVE * x)).sum(dim=(-1, -2))
        if with_twists:
            shift = SHIFTS[(walkers["twist"][:, 0] > 0.1).long()][:, None]
            extra = extra + shift * torch.sin(WAVE * x).sum(dim=(-1, -2))
        return KT * (own + extra)

    twists, weights = (TWISTS, WEIGHTS) if with_twists else (TWISTS[:1], torch.ones(1))
    return CoupledDensity(poor, electron_target, energies, twists, weights)


def make_sampler(electron_walkers: int = 16, width: float = 0.35, num_proton_steps: int = 3) -> NestedSampler:
    return NestedSampler(
        SYSTEM,
        num_proton_steps=num_proton_steps,
        num_electron_steps=4,
        initial_electron_width=0.45,
        proton_sampling="ceimc",
        ceimc_electron_walkers=electron_walkers,
        ceimc_proton_width=width,
    )


def start(sampler, groups=range(4), per_group=2, seed=2):
    random = WalkerRandom(groups, seed)
    count = per_group * len(groups)
    states = WalkerStates.at(2.0, KELVIN, torch.zeros(count, 3))
    torch.manual_seed(4)
    angles = torch.distributions.VonMises(torch.tensor(0.0), torch.tensor(KAPPA)).sample((count, 2, 3))
    protons = CELL.wrap(angles / WAVE)
    return sampler.start(protons, states, torch.zeros(count, dtype=torch.int64), 4, random)


def mean_cosine(density: CoupledDensity, sampler: NestedSampler, sweeps: int = 30):
    """Mean of cos(W x), its standard error from the walkers, and the mean of each number of the reports."""
    walkers = start(sampler, per_group=32)
    for _ in range(3):  # the protons are in their distribution, the electrons settle
        sampler.step(walkers, density, electron_target, adapt=False)
    series, reports = [], []
    for _ in range(sweeps):
        reports.append(sampler.step(walkers, density, electron_target, adapt=False))
        series.append(torch.cos(WAVE * walkers.protons).mean(dim=(-1, -2)))
    means = torch.stack(series).mean(dim=0)
    report = {name: float(torch.stack([each[name].double() for each in reports]).mean()) for name in reports[0]}
    return float(means.mean()), float(means.std() / len(means) ** 0.5), report


EXACT = float(iv(1, KAPPA) / iv(0, KAPPA))


@pytest.mark.parametrize(("noise", "with_twists"), [(4.0, False), (2.5, True)], ids=["gamma", "weighted twists"])
def test_noisy_energies_leave_the_distribution(noise: float, with_twists: bool) -> None:
    """Noise of about kT in every decision, a poor surrogate, and twists that disagree."""
    value, error, report = mean_cosine(model(noise, with_twists), make_sampler())
    assert abs(value - EXACT) < 4 * error, f"{value:.4f} +- {error:.4f}, exact {EXACT:.4f}"
    assert report["ceimc_noise"] > 0.4
    assert 0.5 < report["ceimc_penalty"] / report["ceimc_noise"] < 0.7
    assert 0.1 < report["ceimc_acceptance"] < 0.8
    assert report["ceimc_failed_warps"] < 0.6


def test_without_the_penalty_the_distribution_is_wrong(monkeypatch) -> None:
    monkeypatch.setattr(coupled, "penalty", lambda noise, freedom: torch.zeros_like(noise))
    value, error, _ = mean_cosine(model(4.0), make_sampler())
    assert abs(value - EXACT) > 6 * error, f"{value:.4f} +- {error:.4f}, exact {EXACT:.4f}"


def test_as_many_walkers_go_as_come_back() -> None:
    """Detailed balance, from draws of the distribution itself."""
    sampler, density = make_sampler(), model(3.0)
    walkers = start(sampler, per_group=400)
    for _ in range(3):  # the electrons settle, and the walkers remain in their distribution
        sampler.step(walkers, density, electron_target, adapt=False)
    before = walkers.protons.clone()
    for _ in range(2):
        sampler.step(walkers, density, electron_target, adapt=False)
    for place, wave in ((0.5, torch.cos), (0.3, torch.sin)):
        near, far = (wave(WAVE * x).flatten(1) > place for x in (before, walkers.protons))
        there, back = (near & ~far).sum(1).double(), (~near & far).sum(1).double()
        assert there.sum() > 100
        surplus = there - back
        assert abs(surplus.sum()) < 4 * surplus.square().sum().sqrt()


def test_energies_known_exactly_pay_no_penalty() -> None:
    density = model(0.0)
    perfect = CoupledDensity(
        lambda x: KAPPA * torch.cos(WAVE * x).sum(dim=(-1, -2)), electron_target, density.energies, *density_twists()
    )
    sampler = make_sampler(width=0.15)
    report = sampler.step(start(sampler), perfect, electron_target, adapt=False)
    assert report["ceimc_penalty"] < 1e-9
    assert report["ceimc_acceptance"] + report["ceimc_failed_warps"] == pytest.approx(1.0)


def density_twists():
    return TWISTS[:1], torch.ones(1)


def test_electrons_stand_at_their_protons_and_widths_stay() -> None:
    """After a decision, taken or not, all electrons are near the protons as they are now; no width adapts."""
    sampler = make_sampler(width=0.1)
    sampler.initial_electron_width = 1e-9
    walkers, density = start(sampler), model(0.0)
    walkers["electrons"] = walkers.protons[:, None].expand(-1, 4, -1, -1).clone()
    width = walkers.log_widths["protons"].clone()
    for _ in range(3):
        report = sampler.step(walkers, density, electron_target, adapt=True)
        away = CELL.minimum_image(walkers[FIELD] - walkers.protons[:, None, None, None])
        assert away.abs().max() < 1e-2
    assert torch.equal(walkers.log_widths["protons"], width)
    assert float(report["proton_width_rs"]) == sampler.ceimc_proton_width


def trajectory(sampler, walkers, num_sweeps, sum_over_processes=None):
    path = []
    for _ in range(num_sweeps):
        report = sampler.step(walkers, model(1.0, True), electron_target, False, sum_over_processes)
        path.append((walkers.protons, walkers.electrons, walkers[FIELD], report["ceimc_acceptance"]))
    return path


def test_resume_is_exact() -> None:
    sampler = make_sampler()
    walkers = start(sampler)
    trajectory(sampler, walkers, 2)
    state = walkers.state_dict()
    expected = trajectory(sampler, walkers, 2)
    resumed = start(sampler, seed=5)
    resumed.load_state_dict(state)
    for old, new in zip(expected, trajectory(sampler, resumed, 2), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(old, new, strict=True))


def test_trajectories_do_not_depend_on_the_number_of_processes() -> None:
    """Groups {0, 1} and {2, 3} in two processes against one with all: bit for bit."""
    sampler = make_sampler()

    def fresh(groups):
        walkers = start(sampler)
        own = torch.tensor([2 * group + i for group in groups for i in range(2)])
        fields = {name: value[own] for name, value in walkers.fields.items()}
        walkers.fields, walkers.random = fields, WalkerRandom(groups, 2)
        return walkers

    expected = trajectory(sampler, fresh(range(4)), 3)

    def process(rank, gather):
        walkers = fresh([2 * rank, 2 * rank + 1])
        return trajectory(sampler, walkers, 3, lambda values: gather(values[None]).sum(0))

    for one, left, right in zip(expected, *run_processes(process, 2), strict=True):
        assert all(torch.equal(torch.cat([left[k], right[k]]), one[k]) for k in range(3))
        assert left[3] == right[3] == one[3]
