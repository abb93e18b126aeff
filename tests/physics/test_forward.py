"""Every rule of the forward Laplacian against reverse-mode differentiation of the same function."""

import math

import pytest
import torch
from torch.nn import functional

from lightning_vfe.physics.forward import Carried, messages_to_first, messages_to_second, relative_vectors
from tests.helpers.derivatives import jacobian_and_laplacian

NUM = 3  # electrons
TOLERANCE = 1e-11


def _draw(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _compare(result, value, jacobian, laplacian):
    result = result.dense()
    for name, found, expected in (
        ("value", result.value, value),
        ("jacobian", result.jacobian, jacobian),
        ("laplacian", result.laplacian, laplacian),
    ):
        assert found.shape == expected.shape, f"{name}: {tuple(found.shape)}, not {tuple(expected.shape)}"
        scale = max(1.0, expected.abs().max().item())
        error = (found - expected).abs().max().item() / scale
        assert error < TOLERANCE, f"{name}: largest error {error:.1e}"


def _check(function, batched=True):
    """One configuration, and two at once, of NUM electrons."""
    positions = _draw(2, NUM, 3)
    references = [(function(r), *jacobian_and_laplacian(function, r)) for r in positions]
    with torch.no_grad():
        _compare(function(Carried.coordinates(positions[0])), *references[0])
        if batched:
            values, jacobians, laplacians = zip(*references, strict=True)
            stacked = torch.stack(values), torch.stack(jacobians, dim=1), torch.stack(laplacians)
            _compare(function(Carried.coordinates(positions)), *stacked)


WEIGHT, BIAS = _draw(4, 3, seed=2), _draw(4, seed=3)
PLAIN = _draw(NUM, 3, seed=4)
PROTONS = _draw(5, 3, seed=5)


def _wave(x):
    return torch.complex(torch.cos(x), torch.sin(x) * 0.5)


def _matrix(x):
    """A complex matrix (..., 3, 3) of which every entry depends on all electrons."""
    mixed = functional.linear(torch.tanh(x), WEIGHT[:3])
    return torch.complex(mixed @ PLAIN + x, mixed * x)


ONE_ARGUMENT = {
    "identity": lambda x: x,
    "tanh": torch.tanh,
    "tanh method": lambda x: x.tanh(),
    "sin": torch.sin,
    "cos": torch.cos,
    "exp": torch.exp,
    "exp complex": lambda x: torch.exp(_wave(x)),
    "log": lambda x: torch.log(1.5 + x.square()),
    "log complex": lambda x: torch.log(3.0 + _wave(x)),
    "sqrt": lambda x: torch.sqrt(1.5 + x.square()),
    "sqrt method": lambda x: (1.5 + x.square()).sqrt(),
    "square": torch.square,
    "square complex": lambda x: _wave(x).square(),
    "reciprocal": lambda x: torch.reciprocal(2.0 + torch.sin(x)),
    "reciprocal complex": lambda x: torch.reciprocal(2.0 + _wave(x)),
    "negative": lambda x: -x,
    "complex": _wave,
    "complex of a plain imaginary part": lambda x: torch.complex(x, PLAIN.expand(x.shape)),
    "sum": lambda x: x.square().sum(-1),
    "sum dims": lambda x: x.square().sum((-2, -1)),
    "sum keepdim": lambda x: torch.sum(x.square(), dim=-2, keepdim=True),
    "mean": lambda x: x.square().mean(-2, keepdim=True),
    "unsqueeze": lambda x: x.square().unsqueeze(-2),
    "unflatten": lambda x: functional.linear(x.square(), WEIGHT).unflatten(-1, (2, 2)),
    "transpose": lambda x: x.square().transpose(-2, -1),
    "movedim": lambda x: x.square().unsqueeze(-1).movedim(-2, -1),
    "getitem": lambda x: x.square()[..., 1:, :],
    "getitem integer": lambda x: x.square()[..., 0],
    "expand_as": lambda x: x.mean(-2, keepdim=True).square().expand_as(x),
    "linear": lambda x: functional.linear(x.square(), WEIGHT, BIAS),
    "linear without bias": lambda x: functional.linear(x.square(), WEIGHT),
    "cat": lambda x: torch.cat([x, x.square()], dim=-1),
    "cat with a constant": lambda x: torch.cat([PLAIN.expand(x.shape), x.square()], dim=-2),
    "where first": lambda x: torch.where(x > 0.0, x.square(), torch.zeros_like(x)),
    "where second": lambda x: torch.where(x > 0.0, torch.ones_like(x), torch.sin(x)),
    "detach": lambda x: x * x.detach().square(),
}


@pytest.mark.parametrize("name", ONE_ARGUMENT)
def test_functions_of_one_argument(name):
    _check(ONE_ARGUMENT[name])


TWO_ARGUMENTS = {
    "add": lambda a, b: a + b,
    "torch.add": torch.add,
    "sub": lambda a, b: a - b,
    "torch.sub": torch.sub,
    "mul": lambda a, b: a * b,
    "torch.mul": torch.mul,
    "div": lambda a, b: a / (3.0 + torch.cos(b)),
    "torch.div": lambda a, b: torch.div(a, 3.0 + torch.cos(b)),
    "matmul": lambda a, b: a @ b.transpose(-2, -1),
    "einsum": lambda a, b: torch.einsum("...if,...jf->...ij", a, b),
    "einsum of a new index": lambda a, b: torch.einsum("...if,...jf->...fij", a, b),
    "torch.matmul": lambda a, b: torch.matmul(a, b.transpose(-2, -1)),
}


@pytest.mark.parametrize("arguments", ["both", "first", "second"])
@pytest.mark.parametrize("name", TWO_ARGUMENTS)
def test_functions_of_two_arguments(name, arguments):
    function = TWO_ARGUMENTS[name]
    if arguments == "both":
        _check(lambda x: function(torch.tanh(x), x.square()))
    elif arguments == "first":
        _check(lambda x: function(x.square(), PLAIN))
    else:
        _check(lambda x: function(PLAIN, x.square()))


def test_arithmetic_with_numbers():
    _check(lambda x: 2.0 - (1.0 + 3.0 * x.square() - 0.5) / 4.0)
    _check(lambda x: 2.0 / (3.0 + torch.sin(x)))
    _check(lambda x: (1j * x).exp() * (0.5 + 2j))


def test_ranks_broadcast():
    walkers = _draw(4, 1, 3, seed=6)  # plain numbers with a leading dimension that the carried ones lack
    for function in (lambda x: x * walkers, lambda x: walkers - x, lambda x: x / walkers, lambda x: walkers @ x):
        _check(lambda x, f=function: f(x.square().transpose(-2, -1)), batched=False)
    _check(lambda x: x.square() * x[..., 0, 0], batched=False)
    _check(lambda x: x[..., 0, :] + x.square(), batched=False)
    _check(lambda x: x.sum((-2, -1), keepdim=True) * x)
    stacked = _draw(4, 3, 3, seed=15)
    _check(lambda x: torch.einsum("...ik,...dkl->...dil", x.square(), stacked))
    _check(lambda x: torch.einsum("...dil,...jl->...dij", x.square().unsqueeze(-3) @ stacked, torch.sin(x)))
    _check(lambda x: torch.einsum("...ik,...kl->...il", walkers, x.square()), batched=False)
    _check(lambda x: x.unsqueeze(-3) @ _draw(2, 3, 3, seed=7) @ x.unsqueeze(-3).transpose(-2, -1))


def test_phase_and_log_of_a_complex_determinant():
    def log_determinant(x):
        return torch.linalg.slogdet(_matrix(x))

    _check(lambda x: log_determinant(x)[1])
    _check(lambda x: log_determinant(x)[0])
    _check(lambda x: log_determinant(x)[0] * torch.exp(log_determinant(x)[1]))


def test_determinants_of_stacked_matrices():
    def stacked(x):
        matrices = _matrix(x).unsqueeze(-3) * torch.complex(_draw(2, 3, 3, seed=8), _draw(2, 3, 3, seed=9))
        phase, log_abs = torch.linalg.slogdet(matrices)
        return (phase * torch.exp(log_abs)).sum(-1)

    _check(stacked)


# --- pairs ----------------------------------------------------------------------------------------------------------

DIAGONAL = torch.eye(NUM).unsqueeze(-1)


def _electron_pairs(x):
    """Without the zero vectors of the electrons with themselves."""
    return relative_vectors(x, x) + DIAGONAL.to(torch.float64)


def _proton_pairs(x):
    return relative_vectors(x, PROTONS)


PAIRS = {"electron-electron": _electron_pairs, "electron-proton": _proton_pairs}

KEEP_PAIRS = {
    "vectors": lambda g: g,
    "features": lambda g: torch.cat([torch.sin(g), torch.cos(g).square()], dim=-1),
    "cat with the distance": lambda g: torch.cat([g, g.square().sum(dim=-1).unsqueeze(-1)], dim=-1),
    "linear": lambda g: functional.linear(torch.tanh(g), WEIGHT, BIAS),
    "distance": lambda g: torch.sqrt(g.square().sum(-1)),
    "with itself": lambda g: torch.exp(-g) * g.square() + g / (2.0 + torch.cos(g)),
    "scaled": lambda g: 2.0 - g.square() * _draw(3, seed=10),
}


@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize("name", KEEP_PAIRS)
def test_pair_functions_keep_three_tangents(pairs, name):
    def function(x):
        return KEEP_PAIRS[name](PAIRS[pairs](x))

    _check(function)
    assert len(function(Carried.coordinates(_draw(2, NUM, 3))).jacobian) == 3


LEAVE_PAIRS = {
    "sum over pairs": lambda g, x: torch.sin(g).sum((-3, -2)),
    "sum over partners by name": lambda g, x: torch.sum(torch.sin(g), dim=-2, keepdim=True),
    "sum over partners": lambda g, x: torch.sin(g).sum(-2),
    "mean over partners": lambda g, x: torch.sin(g).mean(-2),
    "transpose": lambda g, x: torch.sin(g).transpose(-3, -2),
    "unflatten": lambda g, x: torch.sin(g).unflatten(-1, (3, 1)),
    "einsum": lambda g, x: torch.einsum("...ijf,...jf->...ij", torch.sin(g), x if g.shape[-2] == NUM else PROTONS),
    "unsqueeze": lambda g, x: torch.sin(g).unsqueeze(-4),
    "movedim": lambda g, x: torch.sin(g).movedim(-1, -3),
    "getitem": lambda g, x: torch.sin(g)[..., :2, 1:, :],
    "plus a particle": lambda g, x: torch.sin(g) + x.square().unsqueeze(-2),
    "times a particle": lambda g, x: x.unsqueeze(-2) * torch.sin(g),
    "divided by a particle": lambda g, x: g / (2.0 + torch.sin(x)).unsqueeze(-2),
    "cat with a particle": lambda g, x: torch.cat([g, x.unsqueeze(-2).expand_as(g)], dim=-1),
    "cat in front of a particle": lambda g, x: torch.cat([x.unsqueeze(-2).expand_as(g), g], dim=-1),
    "cat of partners": lambda g, x: torch.cat([g, torch.sin(g)], dim=-2),
    "matmul": lambda g, x: torch.sin(g) @ WEIGHT.T,
    "complex": lambda g, x: torch.complex(torch.sin(g), torch.cos(g)),
}


@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize("name", LEAVE_PAIRS)
def test_pairs_that_meet_other_quantities(pairs, name):
    _check(lambda x: LEAVE_PAIRS[name](PAIRS[pairs](x), x))


def test_electron_pairs_with_proton_pairs():
    protons = _draw(NUM, 3, seed=11)
    _check(lambda x: _electron_pairs(x) * torch.sin(relative_vectors(x, protons)))


def test_pairs_with_plain_numbers_of_a_higher_rank():
    walkers = _draw(2, 1, 1, 3, seed=12)
    for pairs in PAIRS.values():
        _check(lambda x, f=pairs: (torch.sin(f(x)) * walkers).sum(-2), batched=False)
        _check(lambda x, f=pairs: (walkers + torch.sin(f(x))).sum(-2), batched=False)
    many_protons = _draw(2, 5, 3, seed=13)
    _check(lambda x: torch.sin(relative_vectors(x, many_protons)).sum(-2), batched=False)


def test_vectors_from_the_protons_and_between_moved_positions():
    _check(lambda x: torch.sin(relative_vectors(PROTONS, x)))

    def moved(x):
        """Backflow positions: no longer the coordinates themselves."""
        return x + 0.1 * torch.tanh(x).sum(-2, keepdim=True) * x

    _check(lambda x: torch.sin(relative_vectors(moved(x), PROTONS)))
    _check(lambda x: torch.sin(relative_vectors(moved(x), x)))

    def among_themselves(x):
        z = moved(x)
        return torch.sin(relative_vectors(z, z))

    _check(among_themselves)


def test_determinant_of_a_matrix_of_pairs():
    def log_determinant(x):
        return torch.linalg.slogdet(torch.exp((1.0 + 2.0j) * torch.sin(_electron_pairs(x)).sum(-1)))[1]

    _check(log_determinant)


# --- messages -------------------------------------------------------------------------------------------------------


def _plain(value):
    return value.value if isinstance(value, Carried) else value.detach()


MESSAGES = {"to first": messages_to_first, "to second": messages_to_second}


@pytest.mark.parametrize("carried", ["both", "pairs", "senders", "none"])
@pytest.mark.parametrize("receiver", MESSAGES)
@pytest.mark.parametrize("pairs", PAIRS)
def test_messages(pairs, receiver, carried):
    """m = sum g s for pairs and senders that are plain or carried, on electrons and on protons."""

    def function(x):
        g = functional.linear(torch.sin(PAIRS[pairs](x)), WEIGHT)
        if receiver == "to first" and pairs == "electron-proton":
            s = functional.linear(torch.tanh(PROTONS * torch.sin(x).sum((-2, -1), keepdim=True)), WEIGHT)
        else:
            s = functional.linear(torch.tanh(x * x.sum(-2, keepdim=True)), WEIGHT)
        g = g if carried in ("both", "pairs") else _plain(g)
        s = s if carried in ("both", "senders") else _plain(s)
        return MESSAGES[receiver](g, s)

    if carried == "none":
        positions = _draw(NUM, 3)
        result = function(Carried.coordinates(positions))
        assert isinstance(result, torch.Tensor)
        torch.testing.assert_close(result, function(positions))
        return
    # What is plain must be a constant for the reference too.
    positions = _draw(2, NUM, 3)
    for r in positions:
        with torch.no_grad():
            result = function(Carried.coordinates(r))
        _compare(result, function(r), *jacobian_and_laplacian(function, r))
    with torch.no_grad():
        together = function(Carried.coordinates(positions))
        apart = [function(Carried.coordinates(r)) for r in positions]
    expected = [torch.stack([getattr(each, part) for each in apart], dim) for part, dim in
                (("value", 0), ("jacobian", 1), ("laplacian", 0))]  # fmt: skip
    _compare(together, *expected)


def test_messages_of_plain_pairs_with_fewer_dimensions():
    """The proton-proton stream has no electron walkers."""
    g = _draw(5, 5, 4, seed=14)

    def function(x):
        s = functional.linear(torch.tanh(PROTONS * torch.sin(x).sum((-2, -1), keepdim=True)), WEIGHT)
        return messages_to_first(g, s)

    _check(function)
    _check(lambda x: messages_to_first(_proton_pairs(x), PROTONS))
    _check(lambda x: messages_to_second(_proton_pairs(x), PLAIN))


# --- misuse ---------------------------------------------------------------------------------------------------------


def test_a_function_without_a_rule_says_so():
    carried = Carried.coordinates(_draw(NUM, 3))
    for function in (torch.erf, torch.atan, torch.linalg.inv):
        with pytest.raises(NotImplementedError, match=r"no forward-Laplacian rule for .*physics/forward/rules.py"):
            function(carried)
    with pytest.raises(AttributeError, match="no forward-Laplacian rule for the tensor method 'softmax'"):
        carried.softmax(-1)
    with pytest.raises(NotImplementedError, match=r"index carried tensors from the end"):
        carried[0]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.sum(),
        lambda x: x.sum(0),
        lambda x: x.mean((0, 1)),
        lambda x: x.unsqueeze(0),
        lambda x: x.transpose(0, 1),
        lambda x: x.movedim(0, 1),
        lambda x: x.unflatten(1, (1, 3)),
        lambda x: torch.cat([x, x]),
        lambda x: torch.cat([x, x], dim=1),
    ],
)
def test_dimensions_not_counted_from_the_end_are_refused(function):
    """They would mean another dimension in the Jacobian than in the value."""
    with pytest.raises(NotImplementedError, match="from the end"):
        function(Carried.coordinates(_draw(2, NUM, 3)))


def test_two_carried_branches_of_where_are_refused():
    x = Carried.coordinates(_draw(NUM, 3))
    with pytest.raises(NotImplementedError, match="where"):
        torch.where(x > 0.0, x, torch.sin(x))


def test_einsum_of_one_or_three_tensors_is_refused():
    x = Carried.coordinates(_draw(NUM, 3))
    for equation, arguments in (("...ij->...ji", (x,)), ("...ij,...ij,...ij->...", (x, x, x))):
        with pytest.raises((NotImplementedError, TypeError)):
            torch.einsum(equation, *arguments)


def test_messages_of_pairs_with_all_tangents_are_refused():
    x = Carried.coordinates(_draw(NUM, 3))
    with pytest.raises(NotImplementedError, match="relative_vectors"):
        messages_to_first(relative_vectors(x, x).dense(), x)


def test_smooth_distance_of_electrons_that_coincide_with_a_proton_is_finite():
    """Plain numbers and carried ones agree on a lattice point, where the gradient is set to zero."""
    from lightning_vfe.physics.cell import PeriodicCell

    cell = PeriodicCell(4, 1.3)
    positions = _draw(NUM, 3)
    protons = positions[:1].clone()
    result = cell.smooth_distance(relative_vectors(Carried.coordinates(positions), protons)).dense()
    assert result.value[0, 0] == 0.0
    assert torch.isfinite(result.jacobian).all() and torch.isfinite(result.laplacian).all()
    assert math.isclose(result.value[1, 0].item(), cell.smooth_distance(positions[1] - positions[0]).item())
