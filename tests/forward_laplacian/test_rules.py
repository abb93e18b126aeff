"""Every rule of the forward Laplacian against reverse-mode differentiation of the same function."""

import pytest
import torch
from torch.nn import functional

from lightning_vfe.forward_laplacian import LaplacianTensor
from tests.helpers.carried import NUM, check, draw

WEIGHT, BIAS = draw(4, 3, seed=2), draw(4, seed=3)
PLAIN = draw(NUM, 3, seed=4)


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
    check(ONE_ARGUMENT[name])


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
        check(lambda x: function(torch.tanh(x), x.square()))
    elif arguments == "first":
        check(lambda x: function(x.square(), PLAIN))
    else:
        check(lambda x: function(PLAIN, x.square()))


def test_arithmetic_with_numbers():
    check(lambda x: 2.0 - (1.0 + 3.0 * x.square() - 0.5) / 4.0)
    check(lambda x: 2.0 / (3.0 + torch.sin(x)))
    check(lambda x: (1j * x).exp() * (0.5 + 2j))


def test_ranks_broadcast():
    walkers = draw(4, 1, 3, seed=6)  # plain numbers with a leading dimension that the carried ones lack
    for function in (lambda x: x * walkers, lambda x: walkers - x, lambda x: x / walkers, lambda x: walkers @ x):
        check(lambda x, f=function: f(x.square().transpose(-2, -1)), batched=False)
    check(lambda x: x.square() * x[..., 0, 0], batched=False)
    check(lambda x: x[..., 0, :] + x.square(), batched=False)
    check(lambda x: x.sum((-2, -1), keepdim=True) * x)
    stacked = draw(4, 3, 3, seed=15)
    check(lambda x: torch.einsum("...ik,...dkl->...dil", x.square(), stacked))
    check(lambda x: torch.einsum("...dil,...jl->...dij", x.square().unsqueeze(-3) @ stacked, torch.sin(x)))
    check(lambda x: torch.einsum("...ik,...kl->...il", walkers, x.square()), batched=False)
    check(lambda x: x.unsqueeze(-3) @ draw(2, 3, 3, seed=7) @ x.unsqueeze(-3).transpose(-2, -1))


def test_phase_and_log_of_a_complex_determinant():
    def log_determinant(x):
        return torch.linalg.slogdet(_matrix(x))

    check(lambda x: log_determinant(x)[1])
    check(lambda x: log_determinant(x)[0])
    check(lambda x: log_determinant(x)[0] * torch.exp(log_determinant(x)[1]))


def test_determinants_of_stacked_matrices():
    def stacked(x):
        matrices = _matrix(x).unsqueeze(-3) * torch.complex(draw(2, 3, 3, seed=8), draw(2, 3, 3, seed=9))
        phase, log_abs = torch.linalg.slogdet(matrices)
        return (phase * torch.exp(log_abs)).sum(-1)

    check(stacked)


# --- misuse ---------------------------------------------------------------------------------------------------------


def test_a_function_without_a_rule_says_so():
    carried = LaplacianTensor.seed(draw(NUM, 3))
    for function in (torch.erf, torch.atan, torch.linalg.inv):
        with pytest.raises(NotImplementedError, match=r"no forward-Laplacian rule for .*docs/forward_laplacian.md"):
            function(carried)
    with pytest.raises(AttributeError, match="no forward-Laplacian rule for the tensor method 'cumsum'"):
        carried.cumsum(-1)
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
        function(LaplacianTensor.seed(draw(2, NUM, 3)))


def test_two_carried_branches_of_where_are_refused():
    x = LaplacianTensor.seed(draw(NUM, 3))
    with pytest.raises(NotImplementedError, match="where"):
        torch.where(x > 0.0, x, torch.sin(x))


def test_einsum_of_one_or_three_tensors_is_refused():
    x = LaplacianTensor.seed(draw(NUM, 3))
    for equation, arguments in (("...ij->...ji", (x,)), ("...ij,...ij,...ij->...", (x, x, x))):
        with pytest.raises((NotImplementedError, TypeError)):
            torch.einsum(equation, *arguments)
