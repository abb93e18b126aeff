"""Forces, pressure, second derivatives and gradients of a loss on forces, against finite differences."""

import pytest
import torch

from lightning_vfe.models.potential.delta import DeltaPotential
from lightning_vfe.models.potential.yukawa import YukawaPotential
from lightning_vfe.physics.cell import PeriodicCell
from tests.helpers.derivatives import central_differences
from tests.helpers.potentials import make_schnet, random_protons


@pytest.fixture(params=["yukawa", "schnet", "schnetpack", "delta"])
def potential(request):
    if request.param == "yukawa":
        return YukawaPotential()
    if request.param == "schnetpack":
        return make_schnet(core_radius=0.0, switch="cosine", yukawa_strength=0.0)
    network = make_schnet()
    return network if request.param == "schnet" else DeltaPotential(network, make_schnet(1, cutoff=3.1))


@pytest.fixture
def cell():
    return PeriodicCell(3, 1.25)


def test_forces(potential, cell):
    z = random_protons(cell, 1)[0]
    energy, forces = potential.energy_and_forces(z, cell)
    assert not energy.requires_grad
    assert not forces.requires_grad
    torch.testing.assert_close(energy, potential.energy(z, cell).detach(), rtol=0.0, atol=1e-13)
    with torch.no_grad():
        numeric = -central_differences(lambda flat: potential.energy(flat.reshape(3, 3), cell), z.flatten(), 1e-3)
    torch.testing.assert_close(forces, numeric.reshape(3, 3), rtol=0.0, atol=1e-7)
    with torch.no_grad():
        assert torch.equal(potential.forces(z, cell), forces), "chains ask for forces without a graph"


def test_pressure_is_minus_the_derivative_by_the_volume(potential, cell):
    z = random_protons(cell, 2)

    @torch.no_grad()
    def energy(volume):
        scale = (volume / cell.volume) ** (1.0 / 3.0)
        return potential.energy(z * scale, PeriodicCell(3, cell.rs * float(scale)))

    def walker_energy(walker):
        return lambda volume: energy(volume)[walker]

    volume = torch.tensor([cell.volume])
    numeric = torch.cat([-central_differences(walker_energy(w), volume, 0.005 * cell.volume) for w in range(2)])
    torch.testing.assert_close(potential.pressure(z, cell), numeric, rtol=1e-5, atol=1e-7)


def test_torch_func(potential, cell):
    """grad, vmap(grad), jacfwd of the forces and vmap of that: vmap changes the layout, not the numbers."""
    z = random_protons(cell, 3)
    forces = potential.forces(z, cell)

    def energy(positions):
        return potential.energy(positions, cell)

    close = {"rtol": 1e-11, "atol": 1e-11}
    torch.testing.assert_close(-torch.func.grad(energy)(z[0]), forces[0], **close)
    torch.testing.assert_close(-torch.func.vmap(torch.func.grad(energy))(z), forces, **close)
    torch.testing.assert_close(torch.func.vmap(lambda one: potential.forces(one, cell))(z), forces, **close)
    hessian = torch.autograd.functional.hessian(energy, z[0])
    slopes = torch.func.jacfwd(lambda one: potential.forces(one, cell))
    torch.testing.assert_close(-slopes(z[0]), hessian, **close)
    torch.testing.assert_close(-torch.func.vmap(slopes)(z)[0], hessian, **close)


def test_second_derivatives(potential, cell):
    z = random_protons(cell, 1)[0]
    slopes = -torch.func.jacfwd(lambda one: potential.forces(one, cell))(z).reshape(9, 9).detach()
    for row in (0, 4, 8):

        def force(flat, row=row):
            return -potential.forces(flat.reshape(3, 3), cell).flatten()[row]

        torch.testing.assert_close(slopes[row], central_differences(force, z.flatten(), 1e-3), rtol=1e-6, atol=1e-6)


def test_loss_on_energies_and_forces_reaches_all_parameters(cell):
    """d loss / d parameters with forces in the loss (a double backward), in a random direction of each tensor."""
    potential = make_schnet()
    z = random_protons(cell, 2)

    def loss():
        energy, forces = potential.energy_and_forces(z, cell, create_graph=True)
        return (energy + 1.2).square().sum() + (forces - 0.1).square().sum()

    parameters = dict(potential.named_parameters())
    gradients = dict(zip(parameters, torch.autograd.grad(loss(), list(parameters.values())), strict=True))
    for name, parameter in parameters.items():
        direction = torch.randn_like(parameter)
        if "embedding" in name:
            direction[0] = 0.0  # there is no element of this number
        start = parameter.detach().clone()

        def along(step, parameter=parameter, start=start, direction=direction):
            with torch.no_grad():
                parameter.copy_(start + step[0] * direction)
            return loss().detach()

        numeric = central_differences(along, torch.zeros(1), 1e-3)[0]
        along(torch.zeros(1))
        exact = (gradients[name] * direction).sum()
        torch.testing.assert_close(exact, numeric, rtol=1e-6, atol=1e-8, msg=lambda m, name=name: f"{name}: {m}")


def test_energies_are_twice_differentiable_at_the_cutoff():
    """E'' of a pair goes to zero in proportion to the distance from the cutoff (and to the middle, where s starts)."""
    cell = PeriodicCell(2, 3.0)  # L = 6.1: only one pair comes within 2.5
    for potential in (YukawaPotential(cutoff=2.5), make_schnet(cutoff=2.5)):

        def second(r, potential=potential):
            z = torch.zeros(2, 3)
            z[1, 0] = r
            slopes = torch.func.jacfwd(lambda one: potential.forces(one, cell))(z)
            return float(slopes[1, 0, 1, 0].detach().abs())

        near, nearer = second(2.499), second(2.4999)
        assert second(2.501) == 0.0
        assert near > 1e-7
        assert nearer == pytest.approx(0.1 * near, rel=0.1)
        assert second(1.2501) == pytest.approx(second(1.2499), rel=0.03)


def test_large_batches_are_worked_off_in_parts(monkeypatch, cell):
    potential, z = make_schnet(), random_protons(cell, 7)
    expected = potential.energy_and_forces(z, cell)
    monkeypatch.setattr("lightning_vfe.models.potential.potential.max_chunk_elements", lambda _: 2 * 3 * 1024)
    for one, other in zip(potential.energy_and_forces(z, cell), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
