"""Twists: grids, lists, folding, and bad input."""

import pytest
import torch

from lightning_vfe.physics.twists import fractional_twists


def test_gamma():
    assert torch.equal(fractional_twists([1, 1, 1]), torch.zeros(1, 3, dtype=torch.float64))


def test_even_grid_is_shifted_and_balanced():
    twists = fractional_twists([4, 4, 4])
    assert twists.shape == (64, 3) and twists.dtype == torch.float64
    assert sorted(set(twists.flatten().tolist())) == [-0.375, -0.125, 0.125, 0.375]
    assert twists.sum(dim=0).abs().max() < 1e-14
    assert len({tuple(twist) for twist in twists.tolist()}) == 64


def test_grid_may_differ_between_directions():
    twists = fractional_twists([3, 1, 2])
    assert twists.shape == (6, 3)
    assert (twists[:, 1] == 0).all()
    assert sorted(set(twists[:, 2].tolist())) == [-0.25, 0.25]


def test_vectors_are_folded():
    twists = fractional_twists([[-0.5, 0.5, 1.25], [0.75, -1.0, 0.0], (0, 1, 2)])
    expected = torch.tensor([[0.5, 0.5, 0.25], [-0.25, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    assert torch.equal(twists, expected)
    assert not torch.signbit(twists[twists == 0]).any()


@pytest.mark.parametrize(
    "spec",
    [[0, 0, 0], [4, 4], [4, 4, -1], [2, 2, 2.0], [True, True, True], [0.25, 0.25, 0.25], [[0.1, 0.2]], [], "gamma", 4,
     None, [[0.1, 0.2, float("nan")]], [[0.1, 0.2, "x"]], [[0.0, 0.0, 0.0], 3]],
)  # fmt: skip
def test_bad_input_names_the_key_and_the_two_forms(spec):
    with pytest.raises(ValueError, match=r"^system.twists = .*grid.*list of vectors") as caught:
        fractional_twists(spec)
    assert "\n" not in str(caught.value)


def test_a_grid_that_no_memory_holds() -> None:
    with pytest.raises(ValueError, match=r"^system.twists = \[100000, 100000, 100000\] is a grid of 1000000000000000 "):
        fractional_twists([100000, 100000, 100000])
    assert len(fractional_twists([10, 10, 10])) == 1000
