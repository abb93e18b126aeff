"""The Boltzmann base: its law, its gradients, and the files that it refuses."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch

from lightning_vfe.models.base.boltzmann import BoltzmannBase
from lightning_vfe.models.base.log_z import LogZEntry, find_entry, log_z_file, read_entries, store_entry
from lightning_vfe.models.base.uniform import UniformBase
from lightning_vfe.models.flow.equivariant_flow import EquivariantFlow
from lightning_vfe.models.potential.storage import potential_hash, save_potential
from lightning_vfe.models.potential.yukawa import YukawaPotential
from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.strata import Strata
from lightning_vfe.physics.system import System
from lightning_vfe.physics.units import KELVIN_TO_HARTREE
from tests.helpers.states import states_at, strata_at

SYSTEM, CELL, KELVIN = System(4), PeriodicCell(4, 1.25), 6000.0
METADATA = {"rs_range": [1.2, 1.3], "temperature_kelvin": KELVIN, "label": {"calculator": "none"}}


def entry(potential: YukawaPotential, **changes: object) -> LogZEntry:
    """ln Z = -20 at CELL and KELVIN."""
    known = LogZEntry(CELL.num_atoms, CELL.rs, KELVIN, -20.0, 0.05, potential_hash(potential), True)
    return dataclasses.replace(known, **changes)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A potential with its ln Z beside it."""
    potential, path = YukawaPotential(), tmp_path / "pair.pt"
    save_potential(potential, path, METADATA)
    store_entry(log_z_file(path), entry(potential))
    return path


def test_law_and_free_energy(stored: Path) -> None:
    base = BoltzmannBase.from_files(SYSTEM, strata_at(CELL), stored)
    kT, z = KELVIN_TO_HARTREE * KELVIN, CELL.length * torch.rand(2, 3, 4, 3)
    energy = YukawaPotential().energy(z, CELL)
    states = states_at(CELL, 2, 3)
    torch.testing.assert_close(base.energy(z, states), energy)
    torch.testing.assert_close(base.log_prob(z, states), -energy / kT + 20.0)
    torch.testing.assert_close(base.log_prob(z, states, energy), base.log_prob(z, states))
    assert torch.equal(base.free_energy(states), torch.full((2, 3), 20.0 * kT))
    assert torch.equal(base.free_energy_error(states), torch.full((2, 3), 0.05 * kT))
    # F = E + kT ln p is the same at every z: the identity that an untrained flow relies on
    torch.testing.assert_close(energy + kT * base.log_prob(z, states), base.free_energy(states))
    assert not any(parameter.requires_grad for parameter in base.parameters())


def test_a_constant_potential_is_the_uniform_base() -> None:
    uniform, states = UniformBase(SYSTEM), states_at(CELL, 5)
    base = BoltzmannBase(CELL, YukawaPotential(strength=0.0), KELVIN, 12 * math.log(CELL.length), 0.0)
    z = CELL.length * torch.rand(5, 4, 3)
    torch.testing.assert_close(base.log_prob(z, states), uniform.log_prob(z, states))
    torch.testing.assert_close(base.free_energy(states), uniform.free_energy(states), rtol=0, atol=1e-14)


def test_gradients_reach_the_flow_through_the_base_energy(stored: Path) -> None:
    """d ln p / d parameters by autograd against a finite difference along a random direction."""
    density = ProtonDensity(
        BoltzmannBase.from_files(SYSTEM, strata_at(CELL), stored),
        EquivariantFlow(SYSTEM, StatePoint(1.3, 5000.0), num_blocks=1, num_steps=1, num_layers=1, num_channels=4),
    )
    flow = list(density.flow.parameters())
    with torch.no_grad():
        for parameter in flow:
            parameter.add_(0.1 * torch.randn_like(parameter))
    x, states = CELL.length * torch.rand(2, 4, 3), states_at(CELL, 2)
    gradients = torch.autograd.grad(density.log_prob(x, states).sum(), flow, allow_unused=True)
    direction = [torch.randn_like(parameter) for parameter in flow]
    slope = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True) if g is not None)
    step, values = 1e-6, []
    with torch.no_grad():
        for sign in (1, -2):
            for parameter, d in zip(flow, direction, strict=True):
                parameter.add_(sign * step * d)
            values.append(density.log_prob(x, states).sum())
    torch.testing.assert_close((values[0] - values[1]) / (2 * step), slope, rtol=1e-6, atol=1e-6)
    terms = density.evaluate(x, states)
    torch.testing.assert_close(terms.log_prob, density.base.log_prob(terms.z, states) + terms.log_abs_det_dzdx)


@pytest.mark.parametrize(
    ("cell", "kelvin", "message"),
    [
        (PeriodicCell(8, 1.25), KELVIN, "no ln Z for N=8 rs=1.25 T=6000 K .* system.num_atoms=8"),
        (
            PeriodicCell(16, 1.25),
            KELVIN,
            "no ln Z for N=16 .* shipped .*h8_rs1p25_6000K_twists222.pt .*potentials/h_rs1p25_6000K.pt, or take",
        ),
        (PeriodicCell(4, 1.26), KELVIN, "no ln Z for N=4 rs=1.26 T=6000 K .*run: lightning-vfe log-z"),
        (CELL, 5000.0, "no ln Z for N=4 rs=1.25 T=5000 K .* system.temperature_kelvin=5000"),
        (PeriodicCell(4, 2.0), KELVIN, "rs = 2.0 is outside the densities"),
        (CELL, 0.0, "."),
    ],
)
def test_another_state_point_is_refused(stored: Path, cell: PeriodicCell, kelvin: float, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        BoltzmannBase.from_files(System(cell.num_atoms), strata_at(cell, kelvin=kelvin), stored)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("lists", [{"rs": [1.25, 1.26]}, {"temperature_kelvin": [5000, 6000]}])
def test_each_of_several_state_points_needs_its_ln_z(stored: Path, lists: dict[str, list[float]]) -> None:
    """The message names the state that lacks it, and the command for it."""
    with pytest.raises(ValueError, match=r"has no ln Z for N=.*run: lightning-vfe log-z .* or take base=uniform$"):
        BoltzmannBase.from_files(SYSTEM, Strata.of(**lists), stored)


def test_a_stale_or_unconverged_or_damaged_result_is_refused(stored: Path, tmp_path: Path) -> None:
    changed = YukawaPotential(screening_length=0.8)
    save_potential(changed, stored, METADATA)
    with pytest.raises(ValueError, match=r"was trained again afterwards; run: lightning-vfe log-z potential.path="):
        BoltzmannBase.from_files(SYSTEM, strata_at(CELL), stored)
    store_entry(log_z_file(stored), entry(changed, converged=False, reasons=("R-hat = 1.4",)))
    with pytest.raises(ValueError, match=r"had not converged .R-hat = 1.4.*log_z.max_sweeps"):
        BoltzmannBase.from_files(SYSTEM, strata_at(CELL), stored)
    log_z_file(stored).write_text('{"entries": [{"num_atoms": 4}]}')
    with pytest.raises(ValueError, match="is damaged; delete it"):
        BoltzmannBase.from_files(SYSTEM, strata_at(CELL), stored)
    with pytest.raises(ValueError, match=r"potential_path = .*no such file"):
        BoltzmannBase.from_files(SYSTEM, strata_at(CELL), tmp_path / "missing.pt")


def test_entries_are_kept_by_state_point(stored: Path, tmp_path: Path) -> None:
    potential, file = YukawaPotential(), log_z_file(stored)
    store_entry(file, entry(potential, num_atoms=2, log_z=-9.0))
    store_entry(file, entry(potential, log_z=-21.0, provenance={"seconds": 3.0}))
    assert [(each.num_atoms, each.log_z) for each in read_entries(file)] == [(2, -9.0), (4, -21.0)]
    content = json.loads(file.read_text())
    assert content["potential_hash"] == potential_hash(potential)
    assert len(content["entries"]) == 2
    assert not list(tmp_path.glob(".*")), "no half-written file may stay"
    # a file elsewhere is named in the advice
    elsewhere = tmp_path / "other.json"
    with pytest.raises(ValueError, match=f"it has nothing.*log_z_path={elsewhere}"):
        find_entry(elsewhere, stored, potential_hash(potential), CELL, KELVIN)
