"""n(k) of free electrons is a step; sums over n(k) are the number of electrons and their kinetic energy."""

import itertools
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from lightning_vfe.errors import SettingError
from lightning_vfe.models.wavefunction.jellium import JelliumWavefunction
from lightning_vfe.physics.local_energy import kinetic_energies
from lightning_vfe.physics.momentum_distribution import MomentumDistributions
from lightning_vfe.physics.state_point import StatePoint, WalkerStates
from lightning_vfe.physics.system import System
from tests.helpers.wavefunctions import trained_like

RS = 2.0
TWIST = torch.tensor([0.25, 0.1, -0.3], dtype=torch.float64)


def states_of(twists: Tensor) -> WalkerStates:
    like = torch.ones(len(twists), dtype=torch.float64)
    return WalkerStates(RS * like, 0.0 * like, twists)


def wavefunction(num: int, trained: float = 0.0) -> JelliumWavefunction:
    """Plane waves alone; or with networks that are analytic in the positions, without cusps."""
    psi = JelliumWavefunction(System(num, protons="none"), StatePoint(RS), 1, 1, 4, 4)
    with torch.no_grad():
        for parameter in psi.parameters():
            parameter.zero_()
        trained_like(psi, seed=4, size=trained)
        psi.jastrow.log_scales.fill_(-40.0)
        psi.streams.pairs.layers[0].weight[:, 6] = 0.0  # d^2 / (1 + d) has a cubic term: its waves end slowly
    return psi


def every_place(num: int, grid: int) -> Callable[[Sequence[int]], Tensor]:
    """Moves each electron to all points of a grid: no random number is left in n(k)."""
    points = torch.tensor(list(itertools.product(range(grid), repeat=3)), dtype=torch.float64) / grid

    def draw(shape: Sequence[int]) -> Tensor:
        if len(shape) == 3:
            return ((torch.arange(num) + 0.5) / num).repeat_interleave(len(points)).expand(*shape)
        return points.repeat(num, 1).expand(*shape)

    return draw


def test_free_electrons_have_a_step() -> None:
    """Of each configuration, for two twists; 2 sum n = N, and 2 sum n k^2 / 2 is the kinetic energy."""
    system, num, grid = System(14, protons="none"), 14, 8
    states = states_of(torch.stack([0.0 * TWIST, TWIST]))
    psi, draw = wavefunction(num), every_place(num, grid)
    electrons = system.cell.length * torch.rand(2, 1, num, 3, generator=torch.Generator().manual_seed(0)).double()
    collector = MomentumDistributions(system.cell, psi, states, draw, num * grid**3, max_wavenumber=2.0)
    collector.update(torch.zeros(2, 0, 3), electrons)
    values = collector.per_walker()["momentum_distribution"]
    kinetic = kinetic_energies(psi, torch.zeros(2, 0, 3), RS * electrons, states).real
    for walker in range(2):
        found = collector.result(values[[walker]], states.twist[[walker]], torch.ones(1), RS)
        filled = psi.wavevectors(states)[walker].norm(dim=-1)
        torch.testing.assert_close(
            torch.from_numpy(found.n), torch.from_numpy((found.k <= float(filled.max()) + 1e-4) * 1.0)
        )
        assert 2.0 * float(found.multiplicity @ found.n) == pytest.approx(num)
        assert float(found.multiplicity @ (found.n * found.k**2)) == pytest.approx(float(kinetic[walker]), rel=1e-5)
    both = collector.result(values, states.twist, torch.ones(2), RS)
    assert 2.0 * float(both.multiplicity @ both.n) == pytest.approx(num)
    assert list(both.k) == sorted(both.k)


def test_kinetic_energy_of_a_neural_wavefunction() -> None:
    """2 sum n k^2 / 2 of each configuration is its local kinetic energy, up to the smallest waves."""
    system, num, grid = System(2, protons="none"), 2, 12
    twists = TWIST.expand(3, 3)
    states, psi = states_of(twists), wavefunction(num, trained=0.1)
    electrons = system.cell.length * torch.rand(3, 2, num, 3, generator=torch.Generator().manual_seed(0)).double()
    draw = every_place(num, grid)
    collector = MomentumDistributions(system.cell, psi, states, draw, num * grid**3, max_wavenumber=8.0)
    collector.update(torch.zeros(3, 0, 3), electrons)
    found = collector.result(collector.per_walker()["momentum_distribution"], twists, torch.ones(3), RS)
    exact = float(kinetic_energies(psi, torch.zeros(3, 0, 3), RS * electrons, states).real.mean())
    empty = float(kinetic_energies(wavefunction(num), torch.zeros(3, 0, 3), RS * electrons, states).real.mean())
    print(f"{float(found.multiplicity @ (found.n * found.k**2)):.5f}, exact {exact:.5f}, free electrons {empty:.5f}")
    assert abs(exact - empty) > 0.03 * abs(empty)
    assert float(found.multiplicity @ (found.n * found.k**2)) == pytest.approx(exact, rel=1e-4)
    assert 2.0 * float(found.multiplicity @ found.n) == pytest.approx(num, rel=1e-6)


def test_random_places_have_the_right_mean_and_error() -> None:
    """N = 2 free electrons: |psi|^2 is uniform, and n = 1 at k = 0 alone."""
    system, walkers, generator = System(2, protons="none"), 200, torch.Generator().manual_seed(5)
    states = states_of(torch.zeros(walkers, 3, dtype=torch.float64))

    def draw(shape: Sequence[int]) -> Tensor:
        return torch.rand(tuple(shape), generator=generator, dtype=torch.float64)

    collector = MomentumDistributions(system.cell, wavefunction(2), states, draw, num_points=2)
    for _ in range(4):
        collector.update(torch.zeros(walkers, 0, 3), system.cell.length * draw((walkers, 3, 2, 3)))
    found = collector.result(collector.per_walker()["momentum_distribution"], states.twist, torch.ones(walkers), RS)
    exact = (found.k == 0.0) * 1.0
    assert found.error[0] < 1e-12
    assert (found.error[1:] < 0.05).all()
    assert (abs(found.n - exact) <= 4.0 * found.error + 1e-12).all(), (found.n, found.error)
    assert list(found.multiplicity[:2]) == pytest.approx([1.0, 6.0], rel=1e-12)  # a sum of weights, to rounding
    assert found.k[1] == pytest.approx(2.0 * math.pi / (RS * system.cell.length), rel=1e-5)


def test_bad_settings() -> None:
    cell, states = System(2, protons="none").cell, states_of(torch.zeros(1, 3))
    with pytest.raises(SettingError, match="num_points"):
        MomentumDistributions(cell, wavefunction(2), states, torch.rand, num_points=0)
    with pytest.raises(SettingError, match="max_wavenumber"):
        MomentumDistributions(cell, wavefunction(2), states, torch.rand, max_wavenumber=0.0)
