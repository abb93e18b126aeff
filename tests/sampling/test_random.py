"""Random streams: reproducible, distinct, and independent of who owns a group."""

import io

import pytest
import torch

from lightning_vfe.sampling import random as random_module
from lightning_vfe.sampling.random import WalkerRandom, group_seed


def test_numbers_of_a_group_do_not_depend_on_the_other_groups():
    everything = WalkerRandom(range(4), seed=7)
    halves = [WalkerRandom([0, 1], seed=7), WalkerRandom([2, 3], seed=7)]
    for _ in range(3):
        for draw in ("normal", "uniform"):
            whole = getattr(everything, draw)((20, 3, 5))
            parts = torch.cat([getattr(half, draw)((10, 3, 5)) for half in halves])
            assert torch.equal(whole, parts), draw


def test_numbers_of_many_moves_do_not_depend_on_the_other_groups(monkeypatch):
    monkeypatch.setattr(random_module, "MOST_NUMBERS", 350)  # three moves of the five at a time
    shapes = lambda walkers: ((walkers, 2, 3, 4), (walkers, 2))  # noqa: E731
    everything = list(WalkerRandom(range(4), seed=7).moves(5, *shapes(16), dtype=torch.float64))
    halves = [list(WalkerRandom(g, seed=7).moves(5, *shapes(8), dtype=torch.float64)) for g in ([0, 1], [2, 3])]
    assert [len(noise) for noise, _ in everything] == [3, 2]
    for part, whole in enumerate(everything):
        for kind, shape in enumerate(shapes(16)):
            assert whole[kind].shape[1:] == shape
            assert torch.equal(whole[kind], torch.cat([half[part][kind] for half in halves], dim=1))
    numbers = torch.cat([noise.flatten() for noise, _ in everything])
    assert len(numbers.unique()) == len(numbers) == 5 * 16 * 24


def test_seeds_are_distinct_and_mixed():
    seeds = [group_seed(3, group) for group in range(20_000)]
    assert len(set(seeds)) == len(seeds)
    assert group_seed(3, 0) != group_seed(2, 1)
    # Half of the 32 bits should differ between neighbouring groups and between neighbouring run seeds.
    for first, second in ((lambda k: (k, 0), lambda k: (k + 1, 0)), (lambda k: (5, k), lambda k: (5, k + 1))):
        flips = [bin(group_seed(*first(k)) ^ group_seed(*second(k))).count("1") for k in range(2000)]
        assert abs(sum(flips) / len(flips) - 16) < 0.5
    draws = WalkerRandom(range(50), seed=0).normal((50 * 2000,)).reshape(50, 2000)
    correlation = torch.corrcoef(draws) - torch.eye(50)
    assert correlation.abs().max() < 5 / 2000**0.5


def test_moments_and_dtype():
    random = WalkerRandom([4, 9], seed=1)
    normal, uniform = random.normal((400, 500)), random.uniform((400, 500), dtype=torch.float32)
    assert normal.dtype == torch.float64
    assert uniform.dtype == torch.float32
    error = 200_000**-0.5
    assert abs(normal.mean()) < 4 * error
    assert abs(normal.var() - 1) < 4 * 2**0.5 * error
    assert abs(uniform.mean() - 0.5) < 4 * error / 12**0.5
    assert uniform.min() >= 0
    assert uniform.max() < 1


def test_saved_state_continues_exactly_and_loads_with_weights_only():
    random = WalkerRandom(range(3), seed=11)
    random.normal((6, 2))
    buffer = io.BytesIO()
    torch.save(random.state_dict(), buffer)
    expected = random.uniform((6, 4))
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    resumed = WalkerRandom(range(3), seed=0)
    resumed.load_state_dict(state)
    assert torch.equal(resumed.uniform((6, 4)), expected)
    last = WalkerRandom([2], seed=0)
    last.load_state_dict(state)
    assert torch.equal(last.uniform((2, 4)), expected[4:])


def test_errors():
    random = WalkerRandom([0, 1, 2], seed=0)
    with pytest.raises(ValueError, match="num_proton_walkers = 10 do not divide into 3 groups"):
        random.normal((10, 3))
    with pytest.raises(ValueError, match=r"no groups \[5\]"):
        WalkerRandom([1, 5], seed=0).load_state_dict(random.state_dict())
    with pytest.raises(ValueError, match="distinct"):
        WalkerRandom([1, 1], seed=0)
    with pytest.raises(ValueError, match="distinct"):
        WalkerRandom([], seed=0)
    with pytest.raises(ValueError, match="seed = -1"):
        WalkerRandom([0], seed=-1)
    state = random.state_dict()
    state["generators"] = state["generators"][:, :16]
    with pytest.raises(ValueError, match="kind of device"):
        random.load_state_dict(state)
