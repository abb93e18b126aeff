"""ln p(x) of the protons' chains: what float32 changes, and how far the coarse density is from p(x)."""

import pytest
import torch

from lightning_vfe.models.base.boltzmann import BoltzmannBase
from lightning_vfe.models.base.uniform import UniformBase
from lightning_vfe.models.chain_density import chain_log_prob
from lightning_vfe.models.flow.equivariant_flow import EquivariantFlow
from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.units import KELVIN_TO_HARTREE
from lightning_vfe.sampling.chains import Chains
from lightning_vfe.sampling.proposals import LangevinProposal
from lightning_vfe.sampling.random import WalkerRandom
from tests.helpers.flows import make_flow, random_protons, report

KELVIN = 6000.0


def shipped_density(num_atoms):
    """The shipped potential under a flow of the default size as after a training, and protons of p(x)."""
    cell = PeriodicCell(num_atoms, 1.25)
    torch.manual_seed(1)
    flow = EquivariantFlow(cell)
    with torch.no_grad():
        flow.contact.amplitude.fill_(0.03)
        flow.networks[0].readout.normal_(std=0.3)
    base = BoltzmannBase.from_files(cell, "potentials/h_rs1p25_6000K.pt", KELVIN)
    chains = Chains(base.log_prob, cell, random_protons(cell, 32), LangevinProposal(), 0.1, WalkerRandom([0], 1))
    for _ in range(15):
        chains.advance(5, adapt=True)
    return cell, ProtonDensity(base, flow), flow.from_base(chains.state.positions).x


@torch.no_grad()
def test_float32_chains_do_not_change_the_free_energy(record_property):
    """The bias of a mean <A> in a density p exp(d) is at most std(A) std(d) to first order (Cauchy-Schwarz), here for
    A = kT ln p(x)."""
    cell, density, x = shipped_density(16)
    exact, rounded = density.log_prob(x), chain_log_prob(density, torch.float32)(x)
    assert rounded.dtype == torch.float64
    difference = rounded - exact
    assert difference.abs().max() > 0, "nothing was rounded"
    report(record_property, difference.abs().max(), 1e-3)
    bias = KELVIN_TO_HARTREE * KELVIN * exact.std() * difference.std() / cell.num_atoms
    assert bias < 1e-5, f"{bias:.1e} Ha per atom"


@torch.no_grad()
def test_float32_serves_the_protons_inside_the_cell_and_on_its_faces(record_property):
    cell = PeriodicCell(4, 1.3)
    density = ProtonDensity(UniformBase(cell, KELVIN), make_flow(cell))
    x = random_protons(cell, 8)
    x[0, 0], x[1, 1] = 0.0, cell.length * (1 - 1e-12)
    report(record_property, (chain_log_prob(density, torch.float32)(x) - density.log_prob(x)).abs().max(), 1e-4)


def test_gradient_has_the_type_of_the_protons():
    cell, density, x = shipped_density(8)
    gradients = []
    for dtype in (None, torch.float32):
        variable = x[:4].clone().requires_grad_()
        gradients.append(torch.autograd.grad(chain_log_prob(density, dtype)(variable).sum(), variable)[0])
    assert gradients[1].dtype == torch.float64
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-4 * float(gradients[0].abs().max()))


def test_the_density_itself_stays_as_it_is():
    cell, density, x = shipped_density(8)
    before = {name: value.clone() for name, value in density.state_dict().items()}
    assert chain_log_prob(density) == density.log_prob and chain_log_prob(density, torch.float64) == density.log_prob
    chain_log_prob(density, torch.float32, coarse=True)(x)
    for name, value in density.state_dict().items():
        assert value.dtype == before[name].dtype and torch.equal(value, before[name]), name
    trained = [parameter.requires_grad for parameter in density.flow.parameters()]
    assert all(trained)


@torch.no_grad()
@pytest.mark.parametrize("base", ["uniform", "shipped"])
def test_coarse_density_is_near(base):
    """Far nearer than the base density is; and exact where every network is applied once."""
    cell, density, x = shipped_density(8)
    if base == "uniform":
        density = ProtonDensity(UniformBase(cell, KELVIN), density.flow)
    exact = density.log_prob(x)
    away = (chain_log_prob(density, coarse=True)(x) - exact).std()
    assert 0 < away < 0.3 * (density.base.log_prob(x) - exact).std()
    once = ProtonDensity(density.base, make_flow(cell, strength=0.5, num_steps=1))
    torch.testing.assert_close(once.coarse_log_prob(x), once.log_prob(x), rtol=0, atol=1e-12)


@torch.no_grad()
def test_coarse_map_in_parts_and_shapes():
    cell = PeriodicCell(4, 1.3)
    flow, x = make_flow(cell, num_steps=3), random_protons(cell, 2, 3)
    whole = flow.to_base_coarsely(x)
    flow.walkers_at_once = 2
    for one, other in zip(whole, flow.to_base_coarsely(x), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    assert whole.z.shape == x.shape and whole.log_abs_det_dzdx.shape == (2, 3)
    torch.testing.assert_close(whole.z, flow.to_base(x).z, rtol=0, atol=0.1 * float((whole.z - x).abs().max()))
