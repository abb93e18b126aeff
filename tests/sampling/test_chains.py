"""Chains of one density: their law, a width that stays while averages are taken, a density that changes, resume."""

import math

import torch

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.sampling.chains import Chains
from lightning_vfe.sampling.proposals import GaussianProposal, LangevinProposal
from lightning_vfe.sampling.random import WalkerRandom

CELL = PeriodicCell(2, 1.25)


class Cosine:
    """ln p = strength * sum cos(2 pi x / L), for which <cos> = I_1(strength) / I_0(strength)."""

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.strength * torch.cos(2 * math.pi * x / CELL.length).sum((-2, -1))

    def mean(self) -> float:
        strength = torch.tensor(self.strength)
        return float(torch.special.i1e(strength) / torch.special.i0e(strength))


def chains(density: Cosine, rule=None, seed: int = 0) -> Chains:
    random = WalkerRandom(range(1), seed)
    start = CELL.length * random.uniform((128, 2, 3), dtype=torch.float64)
    return Chains(density, CELL, start, rule or LangevinProposal(), 0.1, random)


def assert_follows(found: Chains, density: Cosine) -> None:
    values = []
    for _ in range(40):
        found.advance(10)
        values.append(torch.cos(2 * math.pi * found.state.positions / CELL.length).mean())
    # 128 chains times 6 coordinates, independent after 10 moves or so
    assert abs(float(torch.stack(values).mean()) - density.mean()) < 4 * 0.5**0.5 / (128 * 6 * 40) ** 0.5


def test_width_adapts_only_when_told_and_the_law_follows_its_density() -> None:
    density = Cosine(2.0)
    found = chains(density)
    for _ in range(30):
        acceptance = found.advance(10, adapt=True)
    assert abs(acceptance - LangevinProposal.target_acceptance) < 0.1
    width = found.log_width
    assert_follows(found, density)
    assert torch.equal(found.log_width, width)
    density.strength = -1.0
    assert not torch.allclose(found.state.log_prob, density(found.state.positions))
    found.place(found.state.positions)
    assert torch.equal(found.state.log_prob, density(found.state.positions))
    found.advance(50)
    assert_follows(found, density)


def test_saved_chains_go_on_equally() -> None:
    first = chains(Cosine(1.0), GaussianProposal())
    first.advance(7, adapt=True)
    second = chains(Cosine(1.0), GaussianProposal(), seed=9)
    second.load_state_dict(first.state_dict())
    assert first.advance(5, adapt=True) == second.advance(5, adapt=True)
    assert torch.equal(first.state.positions, second.state.positions)
    assert torch.equal(first.state.log_prob, second.state.log_prob)
    assert torch.equal(first.log_width, second.log_width)
