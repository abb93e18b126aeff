"""What F does not depend on: where its terms stand, and how p(x) is sampled."""

import functools
import math

import numpy as np
import pytest
import torch

from lightning_vfe.models.base.boltzmann import BoltzmannBase
from lightning_vfe.models.flow.equivariant_flow import EquivariantFlow
from lightning_vfe.models.potential.yukawa import YukawaPotential
from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.models.wavefunction.wavefunction import GeminalWavefunction
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.free_energy import momentum_free_energy
from lightning_vfe.physics.observables import RadialDistribution, RadialDistributions
from lightning_vfe.physics.statistics import Estimate, estimate
from lightning_vfe.physics.system import System
from lightning_vfe.physics.units import KELVIN_TO_HARTREE
from lightning_vfe.sampling.nested import NestedSampler
from lightning_vfe.state.variational_state import VariationalState
from tests.helpers.flows import make_flow
from tests.helpers.states import strata_at

KELVIN, LOG_Z = 6000.0, 12.3


def test_identity_flow_leaves_the_free_energy_difference_to_the_potential() -> None:
    torch.manual_seed(0)
    cell, system, kT = PeriodicCell(2, 2.0), System(2), KELVIN_TO_HARTREE * KELVIN
    potential, strata = YukawaPotential(), strata_at(cell, kelvin=KELVIN)
    base = BoltzmannBase(cell, potential, KELVIN, LOG_Z, log_z_error=0.1)
    flow = EquivariantFlow(system, strata.reference, num_layers=1, num_channels=2, num_radial=2)
    wavefunction = GeminalWavefunction(system, strata.reference, num_layers=1, single_width=4, pair_width=4)
    sampler = NestedSampler(system, num_proton_steps=2, num_electron_steps=2)
    walkers = {"num_proton_walkers": 8, "num_electron_walkers": 2, "num_groups": 2, "equilibration_sweeps": 1}
    state = VariationalState(system, strata, wavefunction, ProtonDensity(base, flow), sampler, **walkers)
    batch = state.batch()
    sample = state.energies(batch)

    energy = 2 * sample.terms["energy_per_atom"] - 1.5 * 2 * kT  # electrons and Coulomb energies
    potential_free_energy = -kT * LOG_Z + momentum_free_energy(system, kT)
    expected = energy - potential.energy(batch.protons, cell) + potential_free_energy
    torch.testing.assert_close(2 * sample.terms["free_energy_per_atom"], expected, rtol=0, atol=1e-10)
    assert torch.allclose(sample.terms["log_det_per_atom"], torch.zeros(8), atol=1e-12)


@functools.cache
@torch.no_grad()
def _measure(proton_sampling: str) -> tuple[dict[str, Estimate], dict[str, RadialDistribution]]:
    """F and its terms, and g(r), of two protons with electrons, at frozen parameters of a map that matters."""
    cell, system = PeriodicCell(2, 2.0), System(2)
    strata = strata_at(cell, kelvin=5 * KELVIN)
    base = BoltzmannBase(cell, YukawaPotential(strength=0.3), 5 * KELVIN, LOG_Z, log_z_error=0.0)
    density = ProtonDensity(base, make_flow(cell, seed=13, strength=1.0, num_steps=2, num_layers=1))
    torch.manual_seed(3)
    wavefunction = GeminalWavefunction(system, strata.reference, num_layers=1, single_width=4, pair_width=4)
    direct = proton_sampling == "direct"
    sampler = NestedSampler(
        system,
        proton_proposal="langevin" if direct else "gaussian",
        num_proton_steps=4 if direct else 10,
        num_electron_steps=8,
        proton_sampling=proton_sampling,
    )
    walkers = {"num_proton_walkers": 64, "num_electron_walkers": 2, "num_groups": 1, "equilibration_sweeps": 10}
    state = VariationalState(
        system, strata, wavefunction, density, sampler, **walkers, seed=1, chain_precision="float32"
    )
    radial, series = RadialDistributions(cell, num_bins=8, r_max=0.8 * cell.length), []
    for _ in range(20):
        batch = state.batch()
        sample = state.energies(batch)
        assert sample.protons is not None
        assert (sample.protons.sign_det_dzdx > 0).all()
        series.append(sample.terms)
        radial.update(batch.protons, batch.electrons)
    terms = {name: estimate(torch.stack([sample[name] for sample in series])) for name in series[0]}
    return terms, radial.result()


@pytest.mark.parametrize("other_way", ["metropolis", "delayed"])
def test_all_ways_of_sampling_give_the_same_free_energy_and_distances(other_way: str) -> None:
    """Chains on the base with inverted maps, chains on p(x), and chains on a surrogate that are decided by p(x), in
    single precision: all terms of F, and g(r) of all pairs.
    """
    terms, radial = _measure("direct")
    others, other_radial = _measure(other_way)
    assert abs(terms["log_det_per_atom"].value) > 10 * terms["log_det_per_atom"].error, "the map hardly matters"
    for name, found in terms.items():
        error = math.hypot(found.error, others[name].error)
        assert found.value == pytest.approx(others[name].value, abs=4 * error), name
    for name, found in radial.items():
        known = np.isfinite(found.error) & np.isfinite(other_radial[name].error)
        pull = (found.g - other_radial[name].g)[known]
        pull /= np.hypot(found.error, other_radial[name].error)[known]
        assert known.sum() >= 4, f"{name}: {pull} standard errors off"
        assert np.abs(pull).max() < 4, f"{name}: {pull} standard errors off"
