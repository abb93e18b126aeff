"""The layers of the wavefunction: carried derivatives against reverse-mode gradients, plain sums against loops."""

import pytest
import torch

from lightning_vfe.forward_laplacian import (
    LaplacianTensor,
    bilinear_scores,
    block_means,
    join_features,
    messages_by_spin,
    opposite_spin_scores,
    paired_plane_waves,
    relative_vectors,
    tanh_layer,
)
from tests.helpers.carried import check, compare, draw
from tests.helpers.derivatives import jacobian_and_laplacian

NUM = 4
DIAGONAL = torch.eye(NUM, dtype=torch.float64).unsqueeze(-1)
PROTONS = draw(5, 3, seed=5)
A, B, BIAS = draw(6, 3, seed=2), draw(6, 3, seed=3), draw(6, seed=4)
PAIRING = torch.complex(draw(2, 7, 7, seed=6), draw(2, 7, 7, seed=7))
WAVES = draw(7, 3, seed=8)


def _electron_pairs(x):
    return torch.sin(relative_vectors(x, x) + DIAGONAL)


LAYERS = {
    "particles": lambda x: tanh_layer([(x, A)], BIAS),
    "two inputs and a state": lambda x: tanh_layer([(x, A), (torch.sin(x), B)], BIAS, state=x @ A.T),
    "plain input": lambda x: tanh_layer([(draw(NUM, 3), A), (x, B)], BIAS, state=draw(NUM, 6)),
    "shared by blocks": lambda x: tanh_layer([(x, A)], BIAS, block_means(torch.sin(x), 2) @ B.T),
    "shared by all, plain": lambda x: tanh_layer([(x, A)], BIAS, draw(1, 6)),
    "electron pairs": lambda x: tanh_layer([(_electron_pairs(x), A)], draw(NUM, NUM, 6)),
    "proton pairs with state": lambda x: tanh_layer(
        [(relative_vectors(x, PROTONS), A[:3])], BIAS[:3], state=relative_vectors(x, PROTONS)
    ),
    "pair features side by side": lambda x: join_features([_electron_pairs(x), torch.cos(relative_vectors(x, x))]),
    "scores of opposite spins": lambda x: opposite_spin_scores(_electron_pairs(x), draw(2, 3)),
    "block means": lambda x: block_means(torch.sin(x), 2),
    "scores": lambda x: bilinear_scores(torch.sin(x)[..., :1, :], torch.cos(x)[..., 1:, :], draw(2, 3, 3)),
    "plane waves": lambda x: paired_plane_waves(torch.sin(x)[..., :1, :], x[..., 1:, :], WAVES, PAIRING),
    "plane waves, two and two": lambda x: paired_plane_waves(torch.sin(x)[..., :2, :], x[..., 2:, :], WAVES, PAIRING),
    "messages by spin": lambda x: torch.cat(messages_by_spin(_electron_pairs(x), torch.cos(x)), dim=-1),
    "messages by spin from plain senders": lambda x: torch.cat(
        messages_by_spin(_electron_pairs(x), draw(NUM, 3)), dim=-1
    ),
    "messages by spin along plain pairs": lambda x: torch.cat(
        messages_by_spin(draw(NUM, NUM, 3), torch.cos(x)), dim=-1
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_carried_layers(name):
    positions = draw(2, NUM, 3)
    references = [(LAYERS[name](r), *jacobian_and_laplacian(LAYERS[name], r)) for r in positions]
    with torch.no_grad():
        compare(LAYERS[name](LaplacianTensor.seed(positions[0])), *references[0])
        values, jacobians, laplacians = zip(*references, strict=True)
        stacked = torch.stack(values), torch.stack(jacobians, dim=1), torch.stack(laplacians)
        compare(LAYERS[name](LaplacianTensor.seed(positions)), *stacked)


def test_messages_by_spin_leave_out_the_electron_itself():
    pairs, senders = draw(2, NUM, NUM, 3), draw(2, NUM, 3, seed=9)
    found = torch.stack(messages_by_spin(pairs, senders), dim=-1)
    up = torch.arange(NUM) < NUM // 2
    for i in range(NUM):
        for kind, partners in enumerate((up == up[i], up != up[i])):
            chosen = [j for j in range(NUM) if partners[j] and j != i]
            expected = sum(pairs[:, i, j] * senders[:, j] for j in chosen)
            torch.testing.assert_close(found[:, i, :, kind], expected)


def test_scores_of_one_plain_and_one_carried_tensor_are_refused():
    x = LaplacianTensor.seed(draw(NUM, 3))
    for first, second in ((x, draw(NUM, 3)), (draw(NUM, 3), x)):
        with pytest.raises(NotImplementedError, match="two plain tensors or two carried"):
            bilinear_scores(first, second, draw(2, 3, 3))


def test_a_carried_state_of_plain_inputs():
    plain = draw(NUM, 3)
    check(lambda x: tanh_layer([(plain[: x.shape[-2]], A)], BIAS, state=x.square() @ A.T))


def test_inputs_of_different_layouts_are_refused():
    x = LaplacianTensor.seed(draw(NUM, 3))
    with pytest.raises(NotImplementedError, match="layout"):
        tanh_layer([(x, A), (_electron_pairs(x), B)], BIAS)
