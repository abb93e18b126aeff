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
from lightning_vfe.sampling.nested import NestedSampler
from lightning_vfe.sampling.random import WalkerRandom

REFERENCE = json.loads((Path(__file__).parent / "reference" / "electronic.json").read_text())
NUM_PROTON_WALKERS, NUM_ELECTRON_WALKERS = 4, 64
NUM_EQUILIBRATION, NUM_SWEEPS = 10, 5


def _name(cell):
    return f"{cell['name']}-twist{sum(map(abs, cell['twist_fractional']))}"


def _energy(reference):
    """Mean local energy with its error, from the scatter of the independent chains, and the sampled local energies."""
    cell = PeriodicCell(reference["num_atoms"], reference["rs"])
    wavefunction = GeminalWavefunction(cell)
    sampler = NestedSampler(cell, num_electron_steps=15)
    protons = torch.tensor(reference["protons_bohr"], dtype=torch.float64).repeat(NUM_PROTON_WALKERS, 1, 1)
    twist = torch.tensor([reference["twist_fractional"]], dtype=torch.float64)
    walkers = sampler.start(protons, twist, NUM_ELECTRON_WALKERS, WalkerRandom(range(NUM_PROTON_WALKERS), seed=1))

    def log_prob(x, r):
        return 2.0 * wavefunction.log_psi(x.unsqueeze(1), r, walkers.twists.unsqueeze(1)).real

    for _ in range(NUM_EQUILIBRATION):
        sampler.step(walkers, None, log_prob, adapt=True)
    ewald, energies = Ewald(cell), []
    for _ in range(NUM_SWEEPS):
        sampler.step(walkers, None, log_prob, adapt=False)
        energies.append(local_energy(ewald, wavefunction.log_psi, protons, walkers.electrons, walkers.twists).total)
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
