"""The nested sampler: conditional law, space warp, independence of the process count, resume."""

import math
import threading

import pytest
import torch
from scipy.special import iv

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.state_point import WalkerStates
from lightning_vfe.physics.system import System
from lightning_vfe.sampling.adaptation import FIRST_STEPS
from lightning_vfe.sampling.nested import NestedSampler
from lightning_vfe.sampling.random import WalkerRandom
from lightning_vfe.sampling.space_warp import space_warp

SYSTEM = System(num_atoms=2)
CELL = SYSTEM.cell
BOHR_CELL = PeriodicCell(num_atoms=2, rs=2.0)
WAVE = 2 * math.pi / CELL.length
PROTON_KAPPA, ELECTRON_KAPPA = 1.5, 2.5
MOVES = [("gaussian", 3), ("gaussian", "auto"), ("langevin", 3), ("hamiltonian", 3), ("hamiltonian", "auto")]


def proton_log_prob(protons):
    return PROTON_KAPPA * torch.cos(WAVE * protons).sum(dim=(-1, -2))


def electron_target(walkers):
    """Each electron in a periodic well around its proton, with a weight of the walker that must not matter."""
    protons = walkers.protons[:, None]
    weight = 100 * torch.sin(WAVE * protons[:, :, 0, 0])
    return lambda electrons: ELECTRON_KAPPA * torch.cos(WAVE * (electrons - protons)).sum(dim=(-1, -2)) + weight


def start(sampler, groups=range(4), per_group=2, num_electron_walkers=3):
    random, count = WalkerRandom(groups, seed=2), per_group * len(groups)
    protons, states = random.uniform((count, 2, 3)) * CELL.length, WalkerStates.at(2.0, twist=torch.zeros(count, 3))
    return sampler.start(protons, states, torch.zeros(count, dtype=torch.int64), num_electron_walkers, random)


@pytest.mark.parametrize(
    ("rule", "num_electron_steps"),
    [("gaussian", 50), ("gaussian", "auto"), ("langevin", 24), ("hamiltonian", 10), ("hamiltonian", "auto")],
)
def test_protons_follow_p_and_electrons_follow_psi(rule, num_electron_steps):
    sampler = NestedSampler(SYSTEM, rule, rule, num_proton_steps=4, num_electron_steps=num_electron_steps)
    walkers = start(sampler, per_group=64)
    for _ in range(30):
        sampler.step(walkers, proton_log_prob, electron_target, adapt=True)
    series = []
    for _ in range(50):
        sampler.step(walkers, proton_log_prob, electron_target, adapt=False)
        relative = walkers.electrons - walkers.protons[:, None]
        proton = torch.cos(WAVE * walkers.protons).mean(dim=(-1, -2))
        series.append(torch.stack([proton, torch.cos(WAVE * relative).mean(dim=(-1, -2, -3))]))
    means = torch.stack(series).mean(dim=0)  # (2, W)
    error = means.std(dim=-1) / means.shape[-1] ** 0.5
    exact = torch.tensor([iv(1, kappa) / iv(0, kappa) for kappa in (PROTON_KAPPA, ELECTRON_KAPPA)])
    pull = (means.mean(dim=-1) - exact) / error
    assert pull.abs().max() < 4, f"{pull} standard errors off"


def test_electron_drift_tells_lagging_from_relaxed_electrons():
    drifts = {}
    for num_electron_steps in (4, 60):
        sampler = NestedSampler(SYSTEM, num_proton_steps=4, num_electron_steps=num_electron_steps)
        walkers = start(sampler, per_group=32)
        for _ in range(20):
            sampler.step(walkers, proton_log_prob, electron_target, adapt=True)
        steps = [sampler.step(walkers, proton_log_prob, electron_target, adapt=False) for _ in range(40)]
        drift = torch.stack([report["electron_drift"] for report in steps])
        drifts[num_electron_steps] = drift.mean(), drift.std() / 40**0.5
    assert drifts[4][0] > 5 * drifts[4][1], drifts
    assert abs(drifts[60][0]) < 4 * drifts[60][1], drifts


def test_number_of_electron_moves_is_kept_or_starts_anew():
    fixed, auto = (NestedSampler(SYSTEM, num_electron_steps=number) for number in (3, "auto"))
    adapted = start(auto)
    adapted.electron_steps = 77.3
    state = adapted.state_dict()
    resumed, other = start(auto), start(fixed)
    resumed.load_state_dict(state)
    other.load_state_dict(state)
    assert resumed.electron_steps == 77.3
    assert other.electron_steps is None
    older = start(auto)
    older.load_state_dict({name: value for name, value in state.items() if name != "electron_steps"})
    assert older.electron_steps == FIRST_STEPS


def test_one_electron_walker_cannot_tell_the_number_of_moves():
    with pytest.raises(ValueError, match="num_electron_steps = auto"):
        start(NestedSampler(SYSTEM, num_electron_steps="auto"), num_electron_walkers=1)


def test_fixed_protons_do_not_move():
    sampler = NestedSampler(SYSTEM, num_electron_steps=3)
    walkers = start(sampler)
    protons, width = walkers.protons.clone(), walkers.log_widths["protons"].clone()
    report = sampler.step(walkers, None, electron_target, adapt=True)
    assert torch.equal(walkers.protons, protons)
    assert walkers.log_widths["protons"] == width
    assert "proton_acceptance" not in report
    assert "proton_width_rs" not in report
    assert walkers.num_sweeps == 1
    assert report["num_stranded"] == 0


def test_protons_without_electrons_go_the_same_way():
    """The proton chain never looks at the electrons; without them it draws their random numbers no more."""
    sampler = NestedSampler(SYSTEM, num_proton_steps=4, num_electron_steps=1)
    alone, nested = start(sampler, num_electron_walkers=None), start(sampler)
    nested.random.load_state_dict(alone.random.state_dict())
    report = sampler.step(alone, proton_log_prob, None, adapt=True)
    sampler.step(nested, proton_log_prob, electron_target, adapt=True)
    assert torch.equal(alone.protons, nested.protons)
    assert alone.num_sweeps == 1
    assert set(alone.log_widths) == {"protons"}
    assert alone.log_widths["protons"] == nested.log_widths["protons"]
    assert "electrons" not in alone.fields
    assert not any("electron" in name for name in report)


def test_broken_density_is_reported():
    sampler = NestedSampler(SYSTEM, num_proton_steps=1, num_electron_steps=1)
    walkers = start(sampler)
    report = sampler.step(walkers, proton_log_prob, lambda _: lambda r: torch.full(r.shape[:2], torch.nan), adapt=False)
    assert report["num_stranded"] == 8 * 3
    assert report["electron_acceptance"] == 0


def test_space_warp_moves_electrons_with_their_protons():
    protons = torch.tensor([[[1.0, 1.0, 1.0], [3.0, 3.0, 3.0]]])
    electrons = torch.tensor([[[[1.01, 1.0, 1.0], [2.0, 2.0, 2.0]], [[1.0, 1.0, 1.0], [3.0, 2.98, 3.0]]]])
    rigid = torch.tensor([0.3, -7.0, 0.1]).expand(1, 2, 3)
    torch.testing.assert_close(space_warp(BOHR_CELL, electrons, protons, rigid), rigid[:, None].expand(1, 2, 2, 3))
    one = torch.tensor([[[0.4, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    shift = space_warp(BOHR_CELL, electrons, protons, one)
    torch.testing.assert_close(shift[0, 0, 0], one[0, 0], atol=1e-6, rtol=0)  # next to the moving proton
    torch.testing.assert_close(shift[0, 0, 1], one[0, 0] / 2)  # half way
    torch.testing.assert_close(shift[0, 1, 0], one[0, 0], atol=1e-10, rtol=0)  # on the moving proton
    torch.testing.assert_close(shift[0, 1, 1], torch.zeros(3), atol=1e-6, rtol=0)  # next to the other one
    image = space_warp(BOHR_CELL, electrons + BOHR_CELL.length, protons, one)
    torch.testing.assert_close(image, shift)


def test_space_warp_is_smooth_where_electrons_pass_a_proton():
    protons = torch.tensor([[[1.0, 1.0, 1.0], [3.0, 3.0, 3.0]]])
    path = torch.linspace(0.2, 3.5, 2001)[:, None] * torch.ones(3)
    shift = space_warp(BOHR_CELL, path[None, :, None], protons, torch.tensor([[[1.0, 0, 0], [-1.0, 0, 0]]]))[0, :, 0, 0]
    assert (shift[1:] - shift[:-1]).abs().max() < 0.01
    assert shift.abs().max() <= 1 + 1e-12


def trajectory(sampler, walkers, num_sweeps, sum_over_processes=None):
    return [
        (
            sampler.step(walkers, proton_log_prob, electron_target, True, sum_over_processes),
            walkers.protons,
            walkers.electrons,
            (walkers.log_widths["protons"], walkers.electron_steps),
        )
        for _ in range(num_sweeps)
    ]


@pytest.mark.parametrize(("rule", "num_electron_steps"), MOVES)
def test_trajectories_do_not_depend_on_the_number_of_processes(rule, num_electron_steps):
    """Two samplers with groups {0, 1} and {2, 3}, adapting together, against one with all: bit for bit."""
    sampler = NestedSampler(SYSTEM, rule, rule, num_proton_steps=3, num_electron_steps=num_electron_steps)
    whole = trajectory(sampler, start(sampler), 8)
    barrier, shares, results = threading.Barrier(2, timeout=60), {}, {}

    def process(rank):
        def sum_over_processes(tensor):
            shares[rank] = tensor
            barrier.wait()
            total = shares[0] + shares[1]
            barrier.wait()
            return total

        walkers = start(sampler, groups=[2 * rank, 2 * rank + 1])
        results[rank] = trajectory(sampler, walkers, 8, sum_over_processes)

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for sweep, (report, protons, electrons, adapted) in enumerate(whole):
        parts = [results[rank][sweep] for rank in range(2)]
        assert torch.equal(torch.cat([part[1] for part in parts]), protons), f"protons differ at sweep {sweep}"
        assert torch.equal(torch.cat([part[2] for part in parts]), electrons), f"electrons differ at sweep {sweep}"
        assert all(part[3] == adapted for part in parts), f"widths or numbers of moves differ at sweep {sweep}"
        for part in parts:
            assert part[0]["electron_acceptance"] == report["electron_acceptance"]
            assert part[0]["electron_memory"] == report["electron_memory"]
            # A sum of reals, not of whole numbers: its order may show in the last digit.
            drift = report["electron_drift"]
            torch.testing.assert_close(part[0]["electron_drift"], drift, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("rule", "num_electron_steps"), MOVES)
def test_resume_is_exact(rule, num_electron_steps):
    sampler = NestedSampler(SYSTEM, rule, rule, num_proton_steps=3, num_electron_steps=num_electron_steps)
    walkers = start(sampler)
    trajectory(sampler, walkers, 4)
    state = walkers.state_dict()
    expected = trajectory(sampler, walkers, 4)
    resumed = start(sampler)
    resumed.load_state_dict(state)
    for (report, protons, electrons, adapted), again in zip(expected, trajectory(sampler, resumed, 4), strict=True):
        assert report == again[0]
        assert torch.equal(protons, again[1])
        assert torch.equal(electrons, again[2])
        assert adapted == again[3]
    assert resumed.num_sweeps == 8


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("num_proton_steps", 0),
        ("num_electron_steps", 2.5),
        ("num_electron_steps", "many"),
        ("proton_target_acceptance", 1.0),
        ("electron_target_acceptance", 0.0),
        ("initial_proton_width", -0.1),
        ("initial_electron_width", math.inf),
        ("adaptation_gain", 0.0),
        ("electron_proposal", "hybrid"),
    ],
)
def test_settings_are_checked(setting, value):
    with pytest.raises(ValueError, match=f"{setting} = ") as caught:
        NestedSampler(SYSTEM, **{setting: value})
    assert "\n" not in str(caught.value)
