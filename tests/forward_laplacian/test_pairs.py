"""Pairs keep three tangents, meet other quantities and become messages: against reverse-mode gradients."""

import math

import pytest
import torch
from torch.nn import functional

from lightning_vfe.forward_laplacian import LaplacianTensor, messages_to_first, messages_to_second, relative_vectors
from lightning_vfe.physics.cell import PeriodicCell
from tests.helpers.carried import NUM, check, compare, draw
from tests.helpers.derivatives import jacobian_and_laplacian

WEIGHT, BIAS = draw(4, 3, seed=2), draw(4, seed=3)
PLAIN = draw(NUM, 3, seed=4)
PROTONS = draw(5, 3, seed=5)
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
    "scaled": lambda g: 2.0 - g.square() * draw(3, seed=10),
}


@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize("name", KEEP_PAIRS)
def test_pair_functions_keep_three_tangents(pairs, name):
    def function(x):
        return KEEP_PAIRS[name](PAIRS[pairs](x))

    check(function)
    assert len(function(LaplacianTensor.seed(draw(2, NUM, 3))).jacobian) == 3


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
    check(lambda x: LEAVE_PAIRS[name](PAIRS[pairs](x), x))


def test_electron_pairs_with_proton_pairs():
    protons = draw(NUM, 3, seed=11)
    check(lambda x: _electron_pairs(x) * torch.sin(relative_vectors(x, protons)))


def test_pairs_with_plain_numbers_of_a_higher_rank():
    walkers = draw(2, 1, 1, 3, seed=12)
    for pairs in PAIRS.values():
        check(lambda x, f=pairs: (torch.sin(f(x)) * walkers).sum(-2), batched=False)
        check(lambda x, f=pairs: (walkers + torch.sin(f(x))).sum(-2), batched=False)
    many_protons = draw(2, 5, 3, seed=13)
    check(lambda x: torch.sin(relative_vectors(x, many_protons)).sum(-2), batched=False)


def test_vectors_from_the_protons_and_between_moved_positions():
    check(lambda x: torch.sin(relative_vectors(PROTONS, x)))

    def moved(x):
        """Backflow positions: no longer the coordinates themselves."""
        return x + 0.1 * torch.tanh(x).sum(-2, keepdim=True) * x

    check(lambda x: torch.sin(relative_vectors(moved(x), PROTONS)))
    check(lambda x: torch.sin(relative_vectors(moved(x), x)))

    def among_themselves(x):
        z = moved(x)
        return torch.sin(relative_vectors(z, z))

    check(among_themselves)


def test_determinant_of_a_matrix_of_pairs():
    def log_determinant(x):
        return torch.linalg.slogdet(torch.exp((1.0 + 2.0j) * torch.sin(_electron_pairs(x)).sum(-1)))[1]

    check(log_determinant)


# --- messages -------------------------------------------------------------------------------------------------------


def _plain(value):
    return value.value if isinstance(value, LaplacianTensor) else value.detach()


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
        positions = draw(NUM, 3)
        result = function(LaplacianTensor.seed(positions))
        assert isinstance(result, torch.Tensor)
        torch.testing.assert_close(result, function(positions))
        return
    # What is plain must be a constant for the reference too.
    positions = draw(2, NUM, 3)
    for r in positions:
        with torch.no_grad():
            result = function(LaplacianTensor.seed(r))
        compare(result, function(r), *jacobian_and_laplacian(function, r))
    with torch.no_grad():
        together = function(LaplacianTensor.seed(positions))
        apart = [function(LaplacianTensor.seed(r)) for r in positions]
    expected = [torch.stack([getattr(each, part) for each in apart], dim) for part, dim in
                (("value", 0), ("jacobian", 1), ("laplacian", 0))]  # fmt: skip
    compare(together, *expected)


def test_messages_of_plain_pairs_with_fewer_dimensions():
    """The proton-proton stream has no electron walkers."""
    g = draw(5, 5, 4, seed=14)

    def function(x):
        s = functional.linear(torch.tanh(PROTONS * torch.sin(x).sum((-2, -1), keepdim=True)), WEIGHT)
        return messages_to_first(g, s)

    check(function)
    check(lambda x: messages_to_first(_proton_pairs(x), PROTONS))
    check(lambda x: messages_to_second(_proton_pairs(x), PLAIN))


def test_messages_of_pairs_with_all_tangents_are_refused():
    x = LaplacianTensor.seed(draw(NUM, 3))
    with pytest.raises(NotImplementedError, match="relative_vectors"):
        messages_to_first(relative_vectors(x, x).dense(), x)


def test_smooth_distance_of_electrons_that_coincide_with_a_proton_is_finite():
    """Plain numbers and carried ones agree on a lattice point, where the gradient is set to zero."""
    cell = PeriodicCell(4, 1.3)
    positions = draw(NUM, 3)
    protons = positions[:1].clone()
    result = cell.smooth_distance(relative_vectors(LaplacianTensor.seed(positions), protons)).dense()
    assert result.value[0, 0] == 0.0
    assert torch.isfinite(result.jacobian).all()
    assert torch.isfinite(result.laplacian).all()
    assert math.isclose(result.value[1, 0].item(), cell.smooth_distance(positions[1] - positions[0]).item())
