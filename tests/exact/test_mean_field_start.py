"""A fresh wavefunction starts close to the mean-field energy of the reference cells, and never below the exact one."""

import json
import math
from pathlib import Path

import pytest
import torch

from lightning_vfe.models.wavefunction.wavefunction import GeminalWavefunction
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.ewald import Ewald
from lightning_vfe.physics.local_energy import local_energy
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.system import System
from lightning_vfe.sampling.nested import NestedSampler
from lightning_vfe.sampling.random import WalkerRandom
from lightning_vfe.state.targets import electron_target
from tests.helpers.states import states_at

REFERENCE = json.loads((Path(__file__).parent / "reference" / "electronic.json").read_text())
NUM_PROTON_WALKERS, NUM_ELECTRON_WALKERS = 4, 64
NUM_EQUILIBRATION, NUM_SWEEPS = 10, 5


def _name(cell):
    return f"{cell['name']}-twist{sum(map(abs, cell['twist_fractional']))}"


def _energy(reference):
    """Mean local energy with its error, from the scatter of the independent chains, and the sampled local energies."""
    system, cell = System(reference["num_atoms"]), PeriodicCell(reference["num_atoms"], reference["rs"])
    wavefunction = GeminalWavefunction(system, StatePoint(cell.rs))
    sampler = NestedSampler(system, num_electron_steps=15)
    protons = torch.tensor(reference["protons_bohr"], dtype=torch.float64).repeat(NUM_PROTON_WALKERS, 1, 1)
    states = states_at(cell, NUM_PROTON_WALKERS, twist=reference["twist_fractional"], kelvin=0.0)
    random, stratum = WalkerRandom(range(NUM_PROTON_WALKERS), seed=1), torch.zeros(NUM_PROTON_WALKERS).long()
    walkers = sampler.start(protons / cell.rs, states, stratum, NUM_ELECTRON_WALKERS, random)
    target = electron_target(wavefunction, None)
    for _ in range(NUM_EQUILIBRATION):
        sampler.step(walkers, None, target, adapt=True)
    ewald, energies = Ewald(system.cell), []
    for _ in range(NUM_SWEEPS):
        sampler.step(walkers, None, target, adapt=False)
        electrons = walkers.electrons * cell.rs
        energies.append(local_energy(ewald, wavefunction.log_psi, protons, electrons, states).total)
    samples = torch.stack(energies)  # (sweeps, W, B)
    chains = samples.real.mean(0).flatten()
    return chains.mean().item(), (chains.std() / math.sqrt(len(chains))).item(), samples


@pytest.mark.parametrize("reference", REFERENCE["cells"], ids=_name)
def test_a_fresh_wavefunction_is_close_to_mean_field(reference, record_property):
    energy, error, samples = _energy(reference)
    record_property("energy", f"{energy:.4f} +- {error:.4f}")
    print(f"E = {energy:.4f} +- {error:.4f}, rhf {reference['rhf']}, exact {reference['exact']}")
    assert error < 0.03
    assert abs(energy - reference["rhf"]) < 0.1
    assert energy > reference["exact"] - 3.0 * error - reference["exact_error"]
    imag = samples.imag.mean(0)  # a mean over |psi|^2 is real
    assert imag.mean().abs() < 4.0 * imag.std() / math.sqrt(imag.numel()) + 1e-12
