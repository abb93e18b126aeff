"""All energies of a batch, and the terms of F that they give."""

from __future__ import annotations

from torch import nn

from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.physics.ewald import Ewald
from lightning_vfe.physics.free_energy import free_energy_terms
from lightning_vfe.physics.local_energy import local_energy
from lightning_vfe.physics.system import System
from lightning_vfe.state.batch import Batch, Sample


def batch_energies(
    system: System, ewald: Ewald, wavefunction: nn.Module, proton_density: ProtonDensity | None, batch: Batch
) -> Sample:
    """E_loc of all electron walkers, ln p(x) of all proton walkers, and the terms of F.

    Args:
        system: the particles.
        ewald: Coulomb energies of its cell.
        wavefunction: psi_x(r).
        proton_density: p(x); None for fixed protons, whose samples are the electron walkers.
        batch: where the walkers stand.
    """
    electronic = local_energy(ewald, wavefunction, batch.protons, batch.electrons, batch.states)
    kinetic, v_pp, v_pe, v_ee = electronic.kinetic.real, electronic.v_pp, electronic.v_pe, electronic.v_ee
    if proton_density is None:
        each = batch.states.unsqueeze(1).expand(*kinetic.shape).flatten()
        flat = kinetic.flatten(), v_pp.flatten(), v_pe.flatten(), v_ee.flatten()
        return Sample(electronic, None, free_energy_terms(system, each, *flat))
    protons = proton_density.evaluate(batch.protons, batch.states)
    terms = free_energy_terms(
        system,
        batch.states,
        kinetic.mean(1),
        v_pp.mean(1),
        v_pe.mean(1),
        v_ee.mean(1),
        log_prob=protons.log_prob,
        log_abs_det_dzdx=protons.log_abs_det_dzdx,
        base_energy=protons.base_energy,
        base_free_energy=proton_density.base.free_energy(batch.states),
    )
    return Sample(electronic, protons, terms)
