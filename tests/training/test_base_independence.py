"""The base density only moves terms around: with an identity flow, F(ML base) = <E - E_ML>_ML + F_ML."""

import torch

from lightning_vfe.models.base.boltzmann import BoltzmannBase
from lightning_vfe.models.flow.equivariant_flow import EquivariantFlow
from lightning_vfe.models.potential.yukawa import YukawaPotential
from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.models.wavefunction.wavefunction import GeminalWavefunction
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.free_energy import momentum_free_energy
from lightning_vfe.physics.units import KELVIN_TO_HARTREE
from lightning_vfe.sampling.nested import NestedSampler
from lightning_vfe.sampling.random import WalkerRandom
from lightning_vfe.training.batch import Batch
from lightning_vfe.training.datamodule import MCMCDataModule
from lightning_vfe.training.module import VariationalFreeEnergy

KELVIN, LOG_Z = 6000.0, 12.3


def test_identity_flow_leaves_the_free_energy_difference_to_the_potential() -> None:
    torch.manual_seed(0)
    cell, kT = PeriodicCell(2, 2.0), KELVIN_TO_HARTREE * KELVIN
    potential = YukawaPotential()
    base = BoltzmannBase(cell, potential, KELVIN, LOG_Z, log_z_error=0.1)
    density = ProtonDensity(base, EquivariantFlow(cell, num_layers=1, num_channels=2, num_radial=2))
    wavefunction = GeminalWavefunction(cell, num_layers=1, single_width=4, pair_width=4)
    module = VariationalFreeEnergy(cell, wavefunction, density, KELVIN)
    sampler = NestedSampler(cell, num_proton_steps=2, num_electron_steps=2)
    datamodule = MCMCDataModule(cell, sampler, num_proton_walkers=8, num_electron_walkers=2, num_groups=2)
    batch = _walkers(module, datamodule)
    sample = module.evaluate(batch)

    energy = 2 * sample.terms["energy_per_atom"] - 1.5 * 2 * kT  # electrons and Coulomb energies
    potential_free_energy = -kT * LOG_Z + momentum_free_energy(2, KELVIN)
    expected = energy - potential.energy(batch.protons, cell) + potential_free_energy
    torch.testing.assert_close(2 * sample.terms["free_energy_per_atom"], expected, rtol=0, atol=1e-10)
    assert torch.allclose(sample.terms["log_det_per_atom"], torch.zeros(8), atol=1e-12)


def _walkers(module: VariationalFreeEnergy, datamodule: MCMCDataModule) -> Batch:
    """One batch, without a trainer."""
    cell, random = module.cell, WalkerRandom(range(2), 1)
    protons = cell.length * random.uniform((8, 2, 3), dtype=torch.float64)
    walkers = datamodule.sampler.start(protons, torch.zeros(1, 3), 2, random)

    def electron_log_prob(x, r):
        return module.electron_log_prob(x, r, walkers.twists)

    report = datamodule.sampler.step(walkers, module.proton_log_prob, electron_log_prob, adapt=False)
    return Batch(walkers.protons, walkers.electrons, walkers.twists, torch.zeros(8, dtype=torch.int64), report)
