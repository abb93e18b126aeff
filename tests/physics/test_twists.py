"""Twists: grids, lists, words, weights, symmetries, folding, and bad input."""

import itertools
import math

import pytest
import torch
from ase.dft.kpoints import monkhorst_pack
from omegaconf import OmegaConf

from lightning_vfe.physics.twists import MOST_TWISTS, TwistGrid, twist_grid

HALF = (0.5, 0.5, 0.5)


def average(grid: TwistGrid, function) -> float:
    """sum_t w_t f(t) for a function of fractions (T, 3) -> (T,)."""
    return float((grid.weights * function(grid.fractions)).sum())


def even_function(fractions):
    """Smooth, with the period 1, f(-t) = f(t), no other symmetry."""
    x, y, z = (2 * math.pi * fractions).unbind(-1)
    return torch.exp(0.3 * torch.cos(x - 2 * y) - 0.8 * torch.cos(y + 0.5 * torch.sin(z))) + torch.sin(x) * torch.sin(z)


def cubic_function(fractions):
    """Smooth, with the period 1 and the symmetry of the cube."""
    cosines = torch.cos(2 * math.pi * fractions)
    return torch.exp(0.7 * cosines.sum(-1)) + cosines.prod(-1) ** 3 + (cosines**2).sum(-1).sqrt()


def plane_wave_kinetic_energy(fractions, num_electrons):
    """Lowest sum_i |2 pi (n_i + f)|^2 / 2 of an unpolarized gas in a cell of length 1.  # (T, 3) -> (T,)"""
    integers = torch.tensor(list(itertools.product(range(-4, 5), repeat=3)), dtype=torch.float64)
    levels = 2 * math.pi**2 * (integers + fractions[:, None]).square().sum(-1)
    return 2 * levels.sort(dim=-1).values[:, : num_electrons // 2].sum(-1)


def test_gamma():
    assert torch.equal(twist_grid([1, 1, 1]).fractions, torch.zeros(1, 3, dtype=torch.float64))


def test_even_grid_is_shifted_and_balanced():
    twists = twist_grid([4, 4, 4]).fractions
    assert twists.shape == (64, 3)
    assert twists.dtype == torch.float64
    assert sorted(set(twists.flatten().tolist())) == [-0.375, -0.125, 0.125, 0.375]
    assert twists.sum(dim=0).abs().max() < 1e-14
    assert len({tuple(twist) for twist in twists.tolist()}) == 64


def test_grid_may_differ_between_directions():
    twists = twist_grid([3, 1, 2]).fractions
    assert twists.shape == (6, 3)
    assert (twists[:, 1] == 0).all()
    assert sorted(set(twists[:, 2].tolist())) == [-0.25, 0.25]


def test_vectors_are_folded():
    twists = twist_grid([[-0.5, 0.5, 1.25], [0.75, -1.0, 0.0], (0, 1, 2)]).fractions
    expected = torch.tensor([[0.5, 0.5, 0.25], [-0.25, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    assert torch.equal(twists, expected)
    assert not torch.signbit(twists[twists == 0]).any()


@pytest.mark.parametrize(
    "spec",
    [[0, 0, 0], [4, 4], [4, 4, -1], [2, 2, 2.0], [True, True, True], [0.25, 0.25, 0.25], [[0.1, 0.2]], [], "gamma", 4,
     None, [[0.1, 0.2, float("nan")]], [[0.1, 0.2, "x"]], [[0.0, 0.0, 0.0], 3]],
)  # fmt: skip
def test_bad_input_names_the_key_and_the_two_forms(spec):
    with pytest.raises(ValueError, match=r"^twists = .*grid.*list of vectors") as caught:
        twist_grid(spec)
    assert "\n" not in str(caught.value)


def test_a_grid_that_no_memory_holds() -> None:
    with pytest.raises(ValueError, match=r"^twists = \[100000, 100000, 100000\] is a grid of 1000000000000000 "):
        twist_grid([100000, 100000, 100000])
    assert len(twist_grid([10, 10, 10]).fractions) == 1000


def test_the_plain_grid_holds_all_twists_with_equal_weights() -> None:
    listed = [[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]]
    for spec, expected in (([4, 3, 2], monkhorst_pack([4, 3, 2])), (listed, listed)):
        grid = twist_grid(spec)
        torch.testing.assert_close(grid.fractions, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-15)
        assert grid.weights.dtype == torch.float64
        assert not grid.is_random
        assert len(grid) == len(grid.weights)
        assert grid.weights.tolist() == pytest.approx([1 / len(grid)] * len(grid), rel=1e-15)


@pytest.mark.parametrize(
    ("size", "symmetry", "multiplicities"),
    [
        ([4, 4, 4], "time_reversal", [2] * 32),
        ([3, 3, 3], "time_reversal", [2] * 13 + [1]),
        ([4, 4, 4], "cubic", [8, 24, 24, 8]),
        ([3, 3, 3], "cubic", [8, 12, 6, 1]),
        ([1, 1, 1], "cubic", [1]),
        ([2, 2, 2], "cubic", [8]),
        ([3, 1, 2], "time_reversal", [2, 2, 2]),
    ],
)
def test_reduced_grids_keep_the_first_twist_of_each_set(size, symmetry, multiplicities) -> None:
    grid, full = twist_grid(size, symmetry), twist_grid(size).fractions.tolist()
    total = math.prod(size)
    assert grid.weights.tolist() == pytest.approx([count / total for count in multiplicities], rel=1e-15)
    assert float(grid.weights.sum()) == pytest.approx(1.0, abs=1e-15)
    positions = [full.index(twist) for twist in grid.fractions.tolist()]
    assert positions == sorted(positions)
    assert positions[0] == 0


@pytest.mark.parametrize("shift", [(0, 0, 0), HALF, (0.5, 0, 0.5), (0.3, -0.2, 1.7)])
@pytest.mark.parametrize("size", [[4, 4, 4], [3, 3, 3], [5, 2, 3], [7, 6, 1], [12, 10, 9]])
def test_reduced_averages_are_those_of_the_whole_grid(size, shift) -> None:
    full = twist_grid(size, shift=shift)
    assert len(full) == math.prod(size)
    reduced, cubic = twist_grid(size, "time_reversal", shift), twist_grid(size, "cubic", shift)
    assert average(reduced, even_function) == pytest.approx(average(full, even_function), abs=1e-13)
    assert average(cubic, cubic_function) == pytest.approx(average(full, cubic_function), abs=1e-13)
    assert len(cubic) <= len(reduced) <= len(full)
    # A shift by whole or half spacings maps the grid on itself when it is reversed.
    fixed = sum(bool(((2 * twist).round() - 2 * twist).abs().max() < 1e-9) for twist in full.fractions)
    assert len(reduced) == ((len(full) + fixed) // 2 if shift != (0.3, -0.2, 1.7) else len(full))


@pytest.mark.parametrize("symmetry", ["time_reversal", "cubic"])
def test_reduced_lists_have_the_averages_of_the_whole_lists(symmetry) -> None:
    generator = torch.Generator().manual_seed(0)
    twists = torch.rand(20, 3, dtype=torch.float64, generator=generator)
    weights = torch.rand(40, 1, dtype=torch.float64, generator=generator) + 0.1
    # The reversed twists come later, moved by reciprocal lattice vectors, and with weights of their own.
    both = torch.cat([twists, torch.tensor([2.0, -1.0, 0.0]) - twists])
    spec = torch.cat([both, weights], dim=1).tolist()
    full, reduced = twist_grid(spec), twist_grid(spec, symmetry)
    assert len(full) == 40
    assert len(reduced) == 20
    assert torch.equal(reduced.fractions, full.fractions[:20])
    function = even_function if symmetry == "time_reversal" else cubic_function
    assert average(reduced, function) == pytest.approx(average(full, function), abs=1e-13)


def test_the_48_operations_of_the_cube_lead_to_one_twist() -> None:
    images = [
        [sign * (0.05, 0.2, 0.4)[axis] for sign, axis in zip(signs, axes, strict=True)]
        for axes in itertools.permutations(range(3))
        for signs in itertools.product((1, -1), repeat=3)
    ]
    assert len(twist_grid(images)) == 48
    assert len(twist_grid(images, "time_reversal")) == 24
    grid = twist_grid(images, "cubic")
    assert grid.fractions.tolist() == [images[0]]
    assert grid.weights.tolist() == [1.0]


@pytest.mark.parametrize("num_electrons", [2, 14])
def test_kinetic_energy_of_filled_plane_waves(num_electrons) -> None:
    def energy(fractions):
        return plane_wave_kinetic_energy(fractions, num_electrons)

    exact = average(twist_grid([4, 4, 4]), energy)
    for symmetry in ("time_reversal", "cubic"):
        assert average(twist_grid([4, 4, 4], symmetry), energy) == pytest.approx(exact, rel=1e-14)
    # By hand: two electrons in the level f, and f_d^2 averages to (1 + 9) / 2 / 64.
    if num_electrons == 2:
        assert exact == pytest.approx(2 * 2 * math.pi**2 * 3 * 5 / 64, rel=1e-14)


def test_weights_of_lists() -> None:
    grid = twist_grid([[0.1, 0, 0, 1], (0.2, 0, 0, 2.0), [-0.1, 0, 0, 5]])
    assert grid.weights.tolist() == [0.125, 0.25, 0.625]
    reduced = twist_grid([[0.1, 0, 0, 1], (0.2, 0, 0, 2.0), [-0.1, 0, 0, 5]], "time_reversal")
    assert reduced.fractions[:, 0].tolist() == [0.1, 0.2]
    assert reduced.weights.tolist() == pytest.approx([0.75, 0.25], rel=1e-15)
    assert twist_grid([[0, 0, 0, 1e308], [0.5, 0, 0, 1e308]]).weights.tolist() == [0.5, 0.5]
    # Three vectors with weights are no grid, and equal weights are no weights.
    assert len(twist_grid([[0, 0, 0, 3], [0.5, 0, 0, 3]]).fractions) == 2


def test_twists_at_the_boundary_of_the_zone_are_one() -> None:
    spec = [[0.5, 0.5, 0.0], [-0.5, 0.5, 0.0], [0.5, -0.5, 1.0], [0.5 + 1e-16, 1.5, -1e-17]]
    grid = twist_grid(spec)
    assert grid.fractions.tolist() == [[0.5, 0.5, 0.0]] * 4
    assert len(twist_grid(spec, "time_reversal")) == 1
    # Rounding may put a component on either side of 1/2: thirds and a shift by half of the spacing.
    shifted = twist_grid([3, 3, 3], shift=HALF)
    assert sorted(set(shifted.fractions.flatten().tolist())) == pytest.approx([-1 / 6, 1 / 6, 0.5], abs=1e-15)
    assert shifted.fractions.max() <= 0.5
    assert len(twist_grid([3, 3, 3], "time_reversal", HALF)) == 14


def test_decimals_stand_for_fractions_where_they_agree_with_each_other() -> None:
    spec = [[0.3333333, 0, 0], [-0.3333333, 0, 0], [0.6666667, 0, 0]]
    assert len(twist_grid(spec, "time_reversal")) == 1
    assert len(twist_grid([[0.3333, 0, 0], [-0.3334, 0, 0]], "time_reversal")) == 2


def test_half_a_spacing_brings_gamma_into_an_even_grid() -> None:
    grid = twist_grid([2, 2, 2], shift=[0.5, 0.5, 0.5])
    assert grid.fractions.tolist() == [list(twist) for twist in itertools.product((0.0, 0.5), repeat=3)]
    assert len(twist_grid([2, 2, 2], "time_reversal", HALF)) == 8
    assert twist_grid([2, 2, 2], "cubic", HALF).weights.tolist() == [1 / 8, 3 / 8, 3 / 8, 1 / 8]
    assert [0.0, 0.0, 0.0] in twist_grid([6, 6, 6], shift=HALF).fractions.tolist()
    assert torch.equal(twist_grid([2, 2, 2], shift=(0, 0.0, 0)).fractions, twist_grid([2, 2, 2]).fractions)
    assert twist_grid([1, 1, 1], shift=[0.25, 0, 0]).fractions.tolist() == [[0.25, 0.0, 0.0]]


@pytest.mark.parametrize("symmetry", ["none", "time_reversal", "cubic"])
def test_words(symmetry) -> None:
    point = twist_grid("baldereschi", symmetry)
    assert point.fractions.tolist() == [[0.25, 0.25, 0.25]]
    assert point.weights.tolist() == [1.0]
    assert not point.is_random
    drawn = twist_grid("random", symmetry, (0, 0, 0))
    assert drawn.is_random
    assert len(drawn) == 1
    assert drawn.fractions.tolist() == [[0.0, 0.0, 0.0]]
    assert drawn.weights.tolist() == [1.0]


def test_baldereschi_point_is_the_mean_value_point_of_the_cubic_lattice() -> None:
    """The first two stars of cosines vanish there: sum cos(x), and sum cos(x) cos(y)."""
    x, y, z = (2 * math.pi * twist_grid("baldereschi").fractions[0]).cos().tolist()
    assert abs(x + y + z) < 1e-15
    assert abs(x * y + y * z + z * x) < 1e-15


def test_lists_of_omegaconf_are_lists() -> None:
    config = OmegaConf.create({"grid": [2, 2, 2], "list": [[0.25, 0, 0, 2], [0, 0, 0, 1]], "shift": [0, 0.5, 0]})
    assert len(twist_grid(config.grid, "cubic", config.shift)) == 2
    assert twist_grid(config.list).weights.tolist() == pytest.approx([2 / 3, 1 / 3])


CORNERS = [[x, y, z] for x in (-0.25, 0.25) for y in (-0.25, 0.25) for z in (-0.25, 0.25)]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (([2, 2, 2],), ([2, 2, 2], "time_reversal"), True),
        (([2, 2, 2],), (CORNERS,), True),
        (([2, 2, 2],), (CORNERS[:4],), True),  # one of f and -f
        (([2, 2, 2],), (CORNERS[:3],), False),
        (([2, 2, 2],), ([2, 2, 2], "none", HALF), False),
        (([2, 2, 2],), ([[*CORNERS[0], 3], *([*corner, 1] for corner in CORNERS[1:4])],), False),
        (([2, 2, 2],), ("baldereschi",), False),
        (([2, 2, 2],), ([2, 2, 2], "cubic"), True),
        (([4, 4, 4],), ([4, 4, 4], "cubic"), True),
        (([4, 4, 4],), ([2, 2, 2],), False),
        (([1, 1, 1],), ([[0, 0, 0]],), True),
        (([1, 1, 1],), ("random",), False),
        (("random",), ("random",), True),
    ],
)
def test_same_averages_are_known_in_any_form(one, other, same: bool) -> None:
    """One twist of f and -f stands for both, and one of a cube's where a grid is reduced by it."""
    assert twist_grid(*one).is_same_average(twist_grid(*other)) == same
    assert twist_grid(*other).is_same_average(twist_grid(*one)) == same


def test_number_of_twists_that_are_averaged() -> None:
    for symmetry in ("none", "time_reversal", "cubic"):
        assert twist_grid([4, 4, 4], symmetry).num_averaged == 64
    assert [twist_grid(each).is_gamma for each in ([1, 1, 1], [2, 2, 2], "baldereschi", "random")] == [
        True,
        False,
        False,
        False,
    ]


LIST = [[0.25, 0.25, 0.25]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gamma",), "^twists = gamma is not a list; .*grid.*list of vectors.*baldereschi and random"),
        ((range(0),), "^twists = .*is not a list"),
        (([[0, 0, 0, 0, 1]],), "^twists = .*no grid and no list of vectors"),
        (([[0, 0, 0, True]],), "^twists = .*no grid and no list of vectors"),
        (([[0, 0, 0, 1], [0, 0, 0]],), "^twists = .* weights for some of its vectors only; give all"),
        (
            ([[0, 0, 0, 1], [0.5, 0, 0, 0]],),
            r"^twists = .* has the weight 0 in the vector \[0.5, 0, 0, 0\]; .*positive",
        ),
        (([[0, 0, 0, -2.5]],), "^twists = .* has the weight -2.5 .*positive"),
        (([[0, 0, 0, math.inf]],), "^twists = .* has the weight inf .*finite"),
        (([[0, 0, 0, math.nan]],), "^twists = .* has the weight nan .*finite"),
        (([100, 100, 2], "cubic"), f"^twists = .*grid of 20000 twists, more than {MOST_TWISTS}; .*smaller"),
        (([2, 2, 2], "mirror"), "^twist_symmetry = mirror is unknown; give none, time_reversal or cubic"),
        (([2, 2, 2], None), "^twist_symmetry = null is unknown"),
        (
            ([2, 2, 2], "none", [0.5, 0.5]),
            r"^twist_shift = \[0.5, 0.5\] is not a list of three finite numbers; give",
        ),
        (([2, 2, 2], "none", 0.5), "^twist_shift = 0.5 is not"),
        (([2, 2, 2], "none", [0, 0, math.nan]), "^twist_shift = .* is not"),
        (([2, 2, 2], "none", ["0", 0, 0]), "^twist_shift = .* is not"),
        (
            (LIST, "none", [0, 0, 0.5]),
            r"^twist_shift = \[0, 0, 0.5\] shifts a grid, .*set .* to \[0, 0, 0\], or",
        ),
        (("baldereschi", "none", HALF), "^twist_shift = .* shifts a grid"),
        (("random", "none", HALF), "^twist_shift = .* shifts a grid"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments, message) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        twist_grid(*arguments)
    assert "\n" not in str(caught.value)
