"""Small variational states and runs."""

from typing import Any

import lightning as L
import torch

from lightning_vfe.models.base.uniform import UniformBase
from lightning_vfe.models.flow.equivariant_flow import EquivariantFlow
from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.models.wavefunction.wavefunction import GeminalWavefunction
from lightning_vfe.physics.strata import Strata
from lightning_vfe.physics.system import System
from lightning_vfe.sampling.nested import NestedSampler
from lightning_vfe.state.variational_state import VariationalState
from lightning_vfe.training.variational.datamodule import MCMCDataModule
from lightning_vfe.training.variational.module import VariationalFreeEnergy
from lightning_vfe.training.variational.optimizers import Adam, NaturalGradient
from tests.helpers.wavefunctions import trained_like

KEYS = {"rs": 2.0, "temperature_kelvin": 6000.0}
"""The keys system.* that are not left to their defaults."""
MOVES = {"num_proton_steps": 2, "num_electron_steps": 2}
WALKERS = {"num_proton_walkers": 8, "num_electron_walkers": 2, "num_groups": 4, "equilibration_sweeps": 2}
STEPS: dict[str, Any] = {"equilibration_steps": 2, "steps_per_epoch": 3, "validation_steps": 4, "test_steps": 8}
STEPS |= {"target_error": None, "max_test_steps": 10_000}


def build_state(
    keys: dict[str, Any] | None = None,
    moves: dict[str, Any] | None = None,
    trained: bool = False,
    num_atoms: int = 2,
    **settings: Any,
) -> VariationalState:
    """Few walkers with small networks on a uniform base; fixed protons stand as in a bcc crystal.

    Args:
        keys: of `Strata.of`, such as {"protons": "fixed"}.
        moves: of the sampler.
        trained: networks of which no part is close to zero.
        num_atoms: N.
        settings: of `VariationalState`.
    """
    L.seed_everything(1, verbose=False)
    strata, system = Strata.of(**(KEYS | (keys or {}))), System(num_atoms)
    wavefunction = GeminalWavefunction(system, strata.reference, num_layers=1, single_width=4, pair_width=4)
    is_fixed, density = (keys or {}).get("protons") == "fixed", None
    if not is_fixed:
        flow = EquivariantFlow(system, strata.reference, num_blocks=1, num_layers=1, num_channels=2, num_radial=2)
        density = ProtonDensity(UniformBase(system), flow)
    if trained:
        trained_like(wavefunction, seed=1)
        if density is not None:
            trained_like(density, seed=2, size=0.1)
    sampler = NestedSampler(system, **(MOVES | (moves or {})))
    start = {"structure": "bcc" if is_fixed else "random"}
    return VariationalState(system, strata, wavefunction, density, sampler, **(WALKERS | start | settings))


def build_run(
    keys: dict[str, Any] | None = None,
    moves: dict[str, Any] | None = None,
    optimizer: Adam | NaturalGradient | None = None,
    **settings: Any,
) -> tuple[VariationalFreeEnergy, MCMCDataModule]:
    """Module and datamodule of such a state; `settings` are those of `build_state` and of the datamodule."""
    steps = {name: settings.pop(name, value) for name, value in STEPS.items()}
    state = build_state(keys, moves, **settings)
    return VariationalFreeEnergy(state, optimizer), MCMCDataModule(state, **steps)


def assert_equal(first: Any, second: Any, path: str = "") -> None:
    """Bit for bit, through dicts and lists."""
    if isinstance(first, dict):
        assert set(first) == set(second), path
        for key in first:
            assert_equal(first[key], second[key], f"{path}/{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), path
        for i, (a, b) in enumerate(zip(first, second, strict=True)):
            assert_equal(a, b, f"{path}/{i}")
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), f"{path} differs by {(first.double() - second.double()).abs().max()}"
    else:
        assert first == second, path
