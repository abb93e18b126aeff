"""ln p(x) of the protons' chains: what float32 changes, and how far the coarse density is from p(x)."""

import pytest
import torch

from lightning_vfe.models.base.boltzmann import BoltzmannBase
from lightning_vfe.models.base.uniform import UniformBase
from lightning_vfe.models.chain_density import chain_log_prob
from lightning_vfe.models.flow.equivariant_flow import EquivariantFlow
from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.models.twin import Twin
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.system import System
from lightning_vfe.physics.units import KELVIN_TO_HARTREE
from lightning_vfe.sampling.chains import Chains
from lightning_vfe.sampling.proposals import LangevinProposal
from lightning_vfe.sampling.random import WalkerRandom
from tests.helpers.flows import make_flow, random_protons, report
from tests.helpers.states import KELVIN, states_at, strata_at


def shipped_density(num_atoms):
    """The shipped potential under a flow of the default size as after a training, and protons of p(x)."""
    system, cell = System(num_atoms), PeriodicCell(num_atoms, 1.25)
    strata, states = strata_at(cell), states_at(cell, 32)
    torch.manual_seed(1)
    flow = EquivariantFlow(system, strata.reference)
    with torch.no_grad():
        flow.contact.amplitude.fill_(0.03)
        flow.networks[0].readout.normal_(std=0.3)
    base = BoltzmannBase.from_files(system, strata, "potentials/h_rs1p25_6000K.pt")
    start, random = random_protons(cell, 32), WalkerRandom([0], 1)
    chains = Chains(lambda z: base.log_prob(z, states), cell, start, LangevinProposal(), 0.1, random)
    for _ in range(15):
        chains.advance(5, adapt=True)
    return cell, ProtonDensity(base, flow), flow.from_base(chains.state.positions, states).x, states


def in_float32(density):
    return Twin(density, torch.float32).module()


@torch.no_grad()
def test_float32_chains_do_not_change_the_free_energy(record_property):
    """The bias of a mean <A> in a density p exp(d) is at most std(A) std(d) to first order (Cauchy-Schwarz), here for
    A = kT ln p(x).
    """
    cell, density, x, states = shipped_density(16)
    exact, rounded = density.log_prob(x, states), chain_log_prob(density, states, in_float32(density))(x)
    assert rounded.dtype == torch.float64
    difference = rounded - exact
    assert difference.abs().max() > 0, "nothing was rounded"
    report(record_property, difference.abs().max(), 1e-3)
    bias = KELVIN_TO_HARTREE * KELVIN * exact.std() * difference.std() / cell.num_atoms
    assert bias < 1e-5, f"{bias:.1e} Ha per atom"


@torch.no_grad()
def test_float32_serves_the_protons_inside_the_cell_and_on_its_faces(record_property):
    cell = PeriodicCell(4, 1.3)
    density = ProtonDensity(UniformBase(System(4)), make_flow(cell))
    x, states = random_protons(cell, 8), states_at(cell, 8)
    x[0, 0], x[1, 1] = 0.0, cell.length * (1 - 1e-12)
    rounded = chain_log_prob(density, states, in_float32(density))(x)
    report(record_property, (rounded - density.log_prob(x, states)).abs().max(), 1e-4)


def test_gradient_has_the_type_of_the_protons():
    _cell, density, x, states = shipped_density(8)
    gradients = []
    for twin in (None, in_float32(density)):
        variable = x[:4].clone().requires_grad_()
        log_prob = chain_log_prob(density, states[:4], twin)
        gradients.append(torch.autograd.grad(log_prob(variable).sum(), variable)[0])
    assert gradients[1].dtype == torch.float64
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-4 * float(gradients[0].abs().max()))


def test_the_density_itself_stays_as_it_is():
    _cell, density, x, states = shipped_density(8)
    before = {name: value.clone() for name, value in density.state_dict().items()}
    assert torch.equal(chain_log_prob(density, states)(x), density.log_prob(x, states))
    chain_log_prob(density, states, in_float32(density), coarse=True)(x)
    for name, value in density.state_dict().items():
        assert value.dtype == before[name].dtype, name
        assert torch.equal(value, before[name]), name
    trained = [parameter.requires_grad for parameter in density.flow.parameters()]
    assert all(trained)


def test_a_twin_follows_the_parameters_in_its_own_memory():
    cell = PeriodicCell(4, 1.3)
    density = ProtonDensity(UniformBase(System(4)), make_flow(cell))
    x, states = random_protons(cell, 3), states_at(cell, 3)
    twin = Twin(density, torch.float32)
    addresses = [parameter.data_ptr() for parameter in twin.module().parameters()]
    with torch.no_grad():
        for parameter in density.parameters():
            parameter.mul_(0.9)
        module = twin.module()
        change = chain_log_prob(density, states, module)(x) - density.log_prob(x, states)
    assert change.abs().max() < 1e-4
    assert addresses == [parameter.data_ptr() for parameter in module.parameters()]
    assert not any(parameter.requires_grad for parameter in module.parameters())


@torch.no_grad()
@pytest.mark.parametrize("base", ["uniform", "shipped"])
def test_coarse_density_is_near(base):
    """Far nearer than the base density is; and exact where every network is applied once."""
    cell, density, x, states = shipped_density(8)
    if base == "uniform":
        density = ProtonDensity(UniformBase(System(8)), density.flow)
    exact = density.log_prob(x, states)
    away = (chain_log_prob(density, states, coarse=True)(x) - exact).std()
    assert 0 < away < 0.3 * (density.base.log_prob(x, states) - exact).std()
    once = ProtonDensity(density.base, make_flow(cell, strength=0.5, num_steps=1))
    torch.testing.assert_close(once.surrogate_log_prob(x, states), once.log_prob(x, states), rtol=0, atol=1e-12)


@torch.no_grad()
def test_coarse_map_in_parts_and_shapes():
    cell = PeriodicCell(4, 1.3)
    flow, x, states = make_flow(cell, num_steps=3), random_protons(cell, 2, 3), states_at(cell, 2, 3)
    whole = flow.to_base_midpoint(x, states)
    flow.max_chunk_elements = 2 * flow.memory.with_jacobian
    assert flow.batch_size(x) == 2
    for one, other in zip(whole, flow.to_base_midpoint(x, states), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    assert whole.z.shape == x.shape
    assert whole.log_abs_det_dzdx.shape == (2, 3)
    torch.testing.assert_close(whole.z, flow.to_base(x, states).z, rtol=0, atol=0.1 * float((whole.z - x).abs().max()))
