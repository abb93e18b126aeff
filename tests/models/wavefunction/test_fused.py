"""The kernels of the pair streams, run by Triton's interpreter: the plain streams to the last digits."""

import warnings

import pytest
import torch

from lightning_vfe.models.wavefunction.density import ElectronDensity
from lightning_vfe.models.wavefunction.density.fused import choice
from lightning_vfe.models.wavefunction.density.streams import plain_streams
from lightning_vfe.models.wavefunction.wavefunction import GeminalWavefunction
from lightning_vfe.physics.state_point import WalkerStates
from lightning_vfe.physics.strata import Strata
from lightning_vfe.physics.system import System
from tests.helpers.wavefunctions import trained_like

pytest.importorskip("triton")  # tests/conftest.py chooses its interpreter


def make_density(num_atoms, num_layers, pair_width, dtype=None):
    """A density of two electron walkers for each of two proton walkers at two densities, and electrons."""
    system, strata = System(num_atoms), Strata.of(rs=1.3, temperature_kelvin=6000.0)
    wavefunction = GeminalWavefunction(system, strata.reference, 1, num_layers, 8, pair_width)
    wavefunction = trained_like(wavefunction, seed=1)
    states = WalkerStates(torch.tensor([1.2, 1.4]), torch.full((2,), 0.019), torch.tensor([[0.1, -0.2, 0.3]] * 2))
    positions = system.cell.length * torch.rand(2, 3, num_atoms, 3)
    density = ElectronDensity.prepare(wavefunction, positions[:, 0] * states.rs[:, None, None], states, dtype)
    return density.for_walkers(2), positions[:, 1:]


def with_gradient(density, positions):
    variable = positions.clone().requires_grad_()
    value = density(variable)
    return value.detach(), torch.autograd.grad(value.sum(), variable)[0]


@pytest.fixture
def on_gpu(monkeypatch):
    """Take the CPU for a GPU, and forget what was found before."""
    monkeypatch.setattr(choice, "is_on_gpu", lambda positions: True)
    monkeypatch.setattr(choice, "_agreed", set())
    monkeypatch.setattr(choice, "failures", [])
    monkeypatch.delenv(choice.SWITCH, raising=False)


@pytest.mark.parametrize(
    ("num_atoms", "num_layers", "pair_width", "dtype"),
    [(2, 1, 5, None), (2, 3, 3, torch.float32), (4, 2, 18, torch.float32), (4, 3, 16, None), (14, 2, 8, None)],
)
def test_values_and_gradients_are_those_of_the_plain_streams(num_atoms, num_layers, pair_width, dtype):
    density, positions = make_density(num_atoms, num_layers, pair_width, dtype)
    given = (density.constants.pairs, density.constants.streams, positions, density.unit_length)
    expected, found = (choice.numbers_of(run, *given) for run in (plain_streams, choice.kernels()))
    assert all(a.dtype == b.dtype and a.shape == b.shape for a, b in zip(expected, found, strict=True))
    error = choice.largest_error(expected, found)
    print(f"largest error: {error:.1f} in units of rounding")
    assert error < 50.0


def test_ln_psi_and_its_gradient(on_gpu, monkeypatch):
    density, positions = make_density(2, 3, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value, gradient = with_gradient(density, positions)
    assert choice._agreed
    monkeypatch.setenv(choice.SWITCH, "0")
    expected, slope = with_gradient(density, positions)
    assert (value - expected).abs().max() < 1e-12
    assert (gradient - slope).abs().max() < 1e-12 * slope.abs().max()


@pytest.mark.parametrize("wrong", ["gradient", "compilation"])
def test_kernels_that_fail_are_left_alone(on_gpu, monkeypatch, wrong):
    def kernels(*given):
        if wrong == "compilation":
            raise RuntimeError("no C compiler\nat all")
        found = plain_streams(*given)
        return found._replace(cusps=found.cusps.detach())

    density, positions = make_density(2, 2, 4)
    monkeypatch.setattr(choice, "kernels", lambda: kernels)
    with monkeypatch.context() as patch:
        patch.setenv(choice.SWITCH, "0")
        expected = density(positions)
    reason = "RuntimeError: no C compiler$" if wrong == "compilation" else "differ from the plain code"
    with pytest.warns(UserWarning, match=rf"the fused kernels are not used, which costs time only: .*{reason}"):
        assert torch.equal(density(positions), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        density(positions)


def test_where_they_are_used(on_gpu, monkeypatch):
    density, positions = make_density(2, 1, 4)
    streams = density.constants.streams
    assert choice.can_be_used(positions, streams)
    half = streams._replace(first=streams.first._replace(pairs=streams.first.pairs.half()))
    assert not choice.can_be_used(positions, half)
    seen = []
    torch.func.vmap(lambda x: seen.append(choice.can_be_used(x, streams)) or x)(positions)
    torch.func.jvp(lambda x: seen.append(choice.can_be_used(x, streams)) or x, (positions,), (positions,))
    assert seen == [False, False]
    monkeypatch.setenv(choice.SWITCH, "0")
    assert not choice.can_be_used(positions, streams)
    monkeypatch.undo()
    assert not choice.can_be_used(positions, streams)
