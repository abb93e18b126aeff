"""First derivatives of ln psi by the parameters and by the positions, and single precision."""

import math

import pytest
import torch

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.kinetic import kinetic_energy
from tests.helpers.states import states_at
from tests.helpers.wavefunctions import GAMMA, GENERAL_TWIST, make_wavefunction, random_configurations

TWISTS = torch.tensor([GAMMA, GENERAL_TWIST], dtype=torch.float64).unsqueeze(1)


@pytest.fixture(params=[(2, 2), (6, 1), (6, 3)], ids=lambda p: f"N{p[0]}-K{p[1]}")
def case(request):
    num_atoms, num_determinants = request.param
    cell = PeriodicCell(num_atoms, 1.31)
    wavefunction = make_wavefunction(cell, seed=5, num_determinants=num_determinants)
    return wavefunction, *random_configurations(cell, 2, 3, seed=5), states_at(cell, twist=TWISTS)


def _difference(function, step=1e-4):
    """Fourth-order difference of ln psi at 0; the difference of logarithms is taken off the branch cut."""
    centre = function(0.0)
    log_ratio = {m: torch.log(torch.exp(function(m * step) - centre)) for m in (-2, -1, 1, 2)}
    return (8.0 * (log_ratio[1] - log_ratio[-1]) - (log_ratio[2] - log_ratio[-2])) / (12.0 * step)


def _directional(log_psi, variable, direction):
    """d ln psi along a direction, for each walker, from reverse mode."""
    parts = []
    for part in (log_psi.real, log_psi.imag):
        gradients = [torch.autograd.grad(number, variable, retain_graph=True)[0] for number in part.flatten()]
        parts.append(torch.stack([(gradient * direction).sum() for gradient in gradients]).reshape(part.shape))
    return torch.complex(*parts)


def test_every_parameter(case):
    """Each parameter tensor on its own, along a random direction."""
    wavefunction, protons, electrons, states = case
    silent = []
    for name, parameter in wavefunction.named_parameters():
        direction = torch.randn_like(parameter)
        start = parameter.detach().clone()
        found = _directional(wavefunction.log_psi(protons, electrons, states), parameter, direction)

        @torch.no_grad()
        def moved(step, parameter=parameter, start=start, direction=direction):
            parameter.copy_(start + step * direction)
            value = wavefunction.log_psi(protons, electrons, states)
            parameter.copy_(start)
            return value

        expected = _difference(moved)
        scale = max(1.0, expected.abs().max().item())
        error = (found - expected).abs().max().item() / scale
        assert error < 1e-7, f"{name}: largest error {error:.1e}"
        if expected.abs().max() < 1e-12:
            silent.append(name)
    # With one up and one down electron nothing tells pairs of the same spin apart.
    assert not silent or wavefunction.system.num_atoms == 2, f"no effect on psi: {silent}"


@pytest.mark.parametrize("particle", ["electrons", "protons"])
def test_positions(case, particle):
    wavefunction, protons, electrons, states = case
    positions = {"protons": protons, "electrons": electrons}
    direction = torch.randn_like(positions[particle])
    start = positions[particle].clone()
    variable = start.clone().requires_grad_()
    log_psi = wavefunction.log_psi(**(positions | {particle: variable}), states=states)
    found = _directional(log_psi, variable, direction)
    with torch.no_grad():
        expected = _difference(
            lambda step: wavefunction.log_psi(**(positions | {particle: start + step * direction}), states=states)
        )
    error = (found - expected).abs().max().item() / max(1.0, expected.abs().max().item())
    assert error < 1e-7, f"largest error {error:.1e}"


def test_single_precision_follows_double_precision():
    cell = PeriodicCell(4, 1.31)
    double, states = make_wavefunction(cell, seed=2), states_at(cell, twist=TWISTS)
    torch.set_default_dtype(torch.float32)
    single = make_wavefunction(cell, seed=2)
    single.load_state_dict(double.state_dict())
    protons, electrons = random_configurations(cell, 2, 3)
    narrow = states.to(torch.float32)
    expected = double.log_psi(protons, electrons, states)
    found = single.log_psi(protons.float(), electrons.float(), narrow)
    assert found.dtype == torch.complex64
    ratio = torch.exp(found - expected)
    assert (ratio - 1.0).abs().max() < 1e-3

    kinetic = kinetic_energy(lambda r: single.log_psi(protons.float(), r, narrow), electrons.float())
    reference = kinetic_energy(lambda r: double.log_psi(protons, r, states), electrons)
    assert kinetic.dtype == torch.complex64
    assert math.isclose(kinetic.real.mean().item(), reference.real.mean().item(), rel_tol=1e-3, abs_tol=1e-2)
