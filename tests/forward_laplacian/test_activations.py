"""Activations and normalizations against reverse-mode differentiation, as functions and as modules of torch.nn."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from lightning_vfe.forward_laplacian import LaplacianTensor, relative_vectors
from lightning_vfe.physics.kinetic import kinetic_energy, kinetic_energy_nested
from tests.helpers.carried import NUM, check, draw
from tests.helpers.derivatives import finite_difference_kinetic

WEIGHT, BIAS = draw(4, 3, seed=2), draw(4, seed=3)

ACTIVATIONS = {
    "sigmoid": torch.sigmoid,
    "sigmoid method": lambda x: x.sigmoid(),
    "silu": functional.silu,
    "softplus": functional.softplus,
    "softplus, steep": lambda x: functional.softplus(x, beta=3.0),
    "softplus, partly a line": lambda x: functional.softplus(x, threshold=0.3),
    "softmax over features": lambda x: functional.softmax(x, dim=-1),
    "torch.softmax": lambda x: torch.softmax(x, -1),
    "softmax method": lambda x: x.softmax(-1),
    "layer norm": lambda x: functional.layer_norm(functional.linear(x, WEIGHT), (4,)),
    "layer norm with weights": lambda x: functional.layer_norm(functional.linear(x, WEIGHT), (4,), BIAS, BIAS.square()),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_of_particles_and_of_pairs(name):
    check(lambda x: ACTIVATIONS[name](x.square()))

    def of_pairs(x):
        return ACTIVATIONS[name](torch.sin(relative_vectors(x, x) + torch.eye(NUM, dtype=x.dtype).unsqueeze(-1)))

    check(of_pairs)
    assert len(of_pairs(LaplacianTensor.seed(draw(2, NUM, 3))).jacobian) == 3


def test_softmax_over_particles():
    check(lambda x: (x.square() @ x.transpose(-2, -1)).softmax(-2))


def test_softmax_of_large_numbers_is_finite():
    result = torch.softmax(1e3 * LaplacianTensor.seed(draw(NUM, 3)), -1)
    for part in (result.value, result.jacobian, result.laplacian):
        assert torch.isfinite(part).all()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: torch.softmax(x, 1), "from the end"),
        (lambda x: functional.softmax(x, -1, dtype=torch.float32), "dtype"),
        (lambda x: functional.layer_norm(x, (NUM, 3)), "last dimension"),
    ],
)
def test_what_the_rules_do_not_cover_is_refused(function, message):
    with pytest.raises(NotImplementedError, match=message):
        function(LaplacianTensor.seed(draw(2, NUM, 3)))


class Network(nn.Module):
    """A complex number of all electrons, of modules of torch.nn."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.embed = nn.Sequential(nn.Linear(3, 6), nn.SiLU(), nn.LayerNorm(6), nn.Linear(6, 6), nn.Softplus())
        self.attend = nn.Softmax(dim=-1)
        self.read = nn.Sequential(nn.Linear(6, 2), nn.Sigmoid())
        self.double()

    def forward(self, electrons):
        states = self.embed(electrons)
        mixed = self.attend(states @ states.transpose(-2, -1)) @ states
        real_and_imaginary = self.read(mixed).sum(-2)
        return torch.complex(real_and_imaginary[..., 0], real_and_imaginary[..., 1])


def test_kinetic_energy_of_a_network_of_modules():
    network, electrons = Network(), draw(5, NUM, 3)
    found = kinetic_energy(network, electrons)
    torch.testing.assert_close(found, kinetic_energy_nested(network, electrons).detach(), rtol=1e-11, atol=1e-11)
    with torch.no_grad():
        differences = finite_difference_kinetic(network, electrons)
    torch.testing.assert_close(found, differences, rtol=1e-7, atol=1e-7)
