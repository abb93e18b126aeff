"""Networks and walkers for the check of an accelerator."""

from __future__ import annotations

from typing import Any

import torch

from lightning_vfe.models.base.uniform import UniformBase
from lightning_vfe.models.flow.equivariant_flow import EquivariantFlow
from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.models.wavefunction.molecular import MolecularWavefunction
from lightning_vfe.models.wavefunction.paired import PairedWavefunction
from lightning_vfe.models.wavefunction.wavefunction import GeminalWavefunction
from lightning_vfe.physics.strata import Strata
from lightning_vfe.physics.system import System
from lightning_vfe.sampling.nested import NestedSampler
from lightning_vfe.state.variational_state import VariationalState

MOVES = 100
"""Electron moves of a sweep."""


def make_state(
    num_atoms: int,
    protons: int,
    electrons: int,
    twists: Any = ((0.25, 0.1, -0.3),),
    moves: int = MOVES,
    molecular: bool = False,
    **settings: Any,
) -> VariationalState:
    """Networks of the paper's size with parameters as after a training, and walkers of one group."""
    torch.manual_seed(0)
    system, strata = System(num_atoms), Strata.of(rs=1.25, temperature_kelvin=6000.0, twists=twists)
    wavefunction: PairedWavefunction
    if molecular:
        wavefunction = MolecularWavefunction(system, strata.reference, 1, 4, 32, 16)
    else:
        wavefunction = GeminalWavefunction(system, strata.reference, 1, 4, 32, 16, max(57, num_atoms + 10))
    flow = EquivariantFlow(system, strata.reference)
    with torch.no_grad():
        for parameter in wavefunction.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        for name, parameter in flow.named_parameters():
            if name.endswith("readout"):
                parameter.normal_(std=0.3)
            elif name.endswith("amplitude"):
                parameter.fill_(0.03)
    sampler = NestedSampler(system, num_electron_steps=moves, proton_sampling="direct")
    density = ProtonDensity(UniformBase(system), flow)
    counts = {"num_proton_walkers": protons, "num_electron_walkers": electrons, "num_groups": 1}
    return VariationalState(system, strata, wavefunction, density, sampler, **counts, **settings)


def move_networks(state: VariationalState, device: str) -> None:
    """Move both networks to a device."""
    state.wavefunction.to(device)
    assert state.proton_density is not None
    state.proton_density.to(device)
